"""The answers of CNI plugins: results of ADD in all spec versions from 0.3.0 on, and errors
(https://github.com/containernetworking/cni/blob/main/SPEC.md section 5)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

#: The supported spec versions, oldest first. In results of the first three, each address has its IP
#: version.
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT_VERSION = VERSIONS[-1]
_WITH_IP_VERSION = frozenset(VERSIONS[:3])

# The error codes of the spec (section 5, "Error"); those from 100 on belong to the plugins.
INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_NETWORK_CONFIG = 7
TRY_AGAIN_LATER = 11
PLUGIN_NOT_AVAILABLE = 50
PLUGIN_NOT_AVAILABLE_LIMITED = 51
INTERNAL = 999


class CNIError(Exception):
    """An error of a plugin, or with code 0 of this package.

    str() is libcni's text: the prefix (`plugin type="bridge" failed (add): `), msg, and details
    after a semicolon.
    """

    def __init__(self, msg: str, *, code: int = 0, details: str = "", prefix: str = "") -> None:
        self.code = code
        self.msg = msg
        self.details = details
        self.prefix = prefix
        super().__init__(prefix + (f"{msg}; {details}" if details else msg))

    def within(self, context: str) -> CNIError:
        """The same error with a longer prefix."""
        return CNIError(
            self.msg,
            code=self.code,
            details=self.details,
            prefix=context + self.prefix,
        )


def version_key(version: str) -> tuple[int, int, int]:
    """Parses a version: "1.0.0" -> (1, 0, 0). Raises ValueError."""
    parts = version.split(".")
    if len(parts) > 3 or not all(part.isdigit() for part in parts):
        raise ValueError(f"failed to parse version {version!r}")
    major, minor, micro = (*map(int, parts), 0, 0)[:3]
    return major, minor, micro


def at_least(version: str, wanted: str) -> bool:
    return version_key(version) >= version_key(wanted)


def _without_empty(pairs: Mapping[str, Any], keep: Iterable[str] = ()) -> dict[str, Any]:
    """The pairs whose value is not empty, and those whose key is in keep."""
    kept = set(keep)
    empty: tuple[Any, ...] = (None, "", (), [], {})
    return {key: value for key, value in pairs.items() if key in kept or value not in empty}


def _text(data: Mapping[str, Any], key: str) -> str:
    """A string, "" if it is missing. Raises TypeError, which Result.parse() converts."""
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{key}: a string is wanted, not {value!r:.40}")
    return value or ""


def _texts(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{key}: a list of strings is wanted, not {value!r:.40}")
    return tuple(value)


def _number(data: Mapping[str, Any], key: str) -> int | None:
    value = data.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"{key}: a number is wanted, not {value!r:.40}")
    return value


@dataclass(frozen=True)
class Interface:
    """An interface that a plugin made. sandbox: the path of its namespace, "" on the node."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0
    socket_path: str = ""
    pci_id: str = ""

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Interface:
        return cls(
            name=_text(data, "name"),
            mac=_text(data, "mac"),
            sandbox=_text(data, "sandbox"),
            mtu=_number(data, "mtu") or 0,
            socket_path=_text(data, "socketPath"),
            pci_id=_text(data, "pciID"),
        )

    def dump(self, version: str) -> dict[str, Any]:
        pairs: dict[str, Any] = {"name": self.name, "mac": self.mac, "sandbox": self.sandbox}
        if at_least(version, "1.1.0"):
            pairs |= {"mtu": self.mtu or None, "socketPath": self.socket_path, "pciID": self.pci_id}
        return _without_empty(pairs, keep=("name",))


@dataclass(frozen=True)
class IPConfig:
    """An address of the container, such as "10.244.1.5/24". interface: an index in interfaces."""

    address: str
    gateway: str = ""
    interface: int | None = None

    @property
    def ip(self) -> str:
        """The address without its prefix length."""
        return self.address.partition("/")[0]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> IPConfig:
        address = _text(data, "address")
        ipaddress.ip_interface(address)
        gateway = _text(data, "gateway")
        return cls(address=address, gateway=gateway, interface=_number(data, "interface"))

    def dump(self, version: str) -> dict[str, Any]:
        pairs: dict[str, Any] = {
            "interface": self.interface,
            "address": self.address,
            "gateway": self.gateway,
        }
        if version in _WITH_IP_VERSION:
            pairs["version"] = str(ipaddress.ip_interface(self.address).version)
        return _without_empty(pairs, keep=("address",))


@dataclass(frozen=True)
class Route:
    """A route in the pod. The fields after gw are from spec 1.1.0; None and 0 mean not given."""

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Route:
        destination = _text(data, "dst")
        ipaddress.ip_network(destination, strict=False)
        return cls(
            dst=destination,
            gw=_text(data, "gw"),
            mtu=_number(data, "mtu") or 0,
            advmss=_number(data, "advmss") or 0,
            priority=_number(data, "priority") or 0,
            table=_number(data, "table"),
            scope=_number(data, "scope"),
        )

    def dump(self, version: str) -> dict[str, Any]:
        pairs: dict[str, Any] = {"dst": self.dst, "gw": self.gw}
        if at_least(version, "1.1.0"):
            pairs |= {
                "mtu": self.mtu or None,
                "advmss": self.advmss or None,
                "priority": self.priority or None,
                "table": self.table,
                "scope": self.scope,
            }
        return _without_empty(pairs, keep=("dst",))


@dataclass(frozen=True)
class DNS:
    """DNS settings for the container; the kubelet writes resolv.conf itself and ignores them."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> DNS:
        return cls(
            nameservers=_texts(data, "nameservers"),
            domain=_text(data, "domain"),
            search=_texts(data, "search"),
            options=_texts(data, "options"),
        )

    def dump(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for spec in fields(self):
            if value := getattr(self, spec.name):
                values[spec.name] = list(value) if isinstance(value, tuple) else value
        return values


@dataclass(frozen=True)
class Result:
    """The result of a successful ADD."""

    cni_version: str = CURRENT_VERSION
    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = field(default_factory=DNS)

    @classmethod
    def parse(cls, data: Mapping[str, Any], default_version: str) -> Result:
        """Reads a plugin's JSON. Raises ValueError.

        default_version: the version of a result without cniVersion.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"malformed result: not an object but {type(data).__name__}")
        version = data.get("cniVersion") or default_version
        if version not in VERSIONS:
            supported = ", ".join(VERSIONS)
            raise ValueError(
                f"unsupported CNI result version {version!r}; supported are {supported}",
            )
        try:
            return cls(
                cni_version=version,
                interfaces=tuple(Interface.parse(entry) for entry in data.get("interfaces") or ()),
                ips=tuple(IPConfig.parse(entry) for entry in data.get("ips") or ()),
                routes=tuple(Route.parse(entry) for entry in data.get("routes") or ()),
                dns=DNS.parse(data.get("dns") or {}),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed result: {type(error).__name__} {error}") from error

    def as_version(self, version: str) -> Result:
        """The same result in another spec version; dump() omits fields which that does not have."""
        if version not in VERSIONS:
            raise ValueError(f'cannot convert from version "{self.cni_version}" to "{version}"')
        return replace(self, cni_version=version)

    def dump(self) -> dict[str, Any]:
        """The JSON of this result in its spec version."""
        version = self.cni_version
        body = {
            "interfaces": [entry.dump(version) for entry in self.interfaces],
            "ips": [entry.dump(version) for entry in self.ips],
            "routes": [entry.dump(version) for entry in self.routes],
            "dns": self.dns.dump(),
        }
        return {"cniVersion": version} | _without_empty(body)
