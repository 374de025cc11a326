"""net-conf.json: flannel's networks and backend
(https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md and backends.md).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
BACKENDS = ("host-gw", "vxlan")
DEFAULT_VNI = 1
#: The kernel's own default, which upstream leaves in force (IANA's 4789 came later).
DEFAULT_PORT = 8472


class NetConfError(ValueError):
    """net-conf.json is invalid; the text names the key and the allowed values."""


@dataclass(frozen=True)
class VxlanBackend:
    """mtu: the MTU of the outer interface in bytes; 0 takes it from the interface."""

    vni: int = DEFAULT_VNI
    port: int = DEFAULT_PORT
    mtu: int = 0
    direct_routing: bool = False
    learning: bool = False
    gbp: bool = False

    def device(self, version: int) -> str:
        """The device's name. Each IP family has its own device, with a local address of that
        family."""
        return f"flannel.{self.vni}" if version == 4 else f"flannel-v6.{self.vni}"


@dataclass(frozen=True)
class NetConf:
    """networks: one network for each enabled family, IPv4 before IPv6."""

    networks: tuple[Network, ...]
    backend_type: str
    vxlan: VxlanBackend = VxlanBackend()

    def network(self, version: int) -> Network | None:
        """The network of this IP version; None if the family is not enabled."""
        return next((network for network in self.networks if network.version == version), None)


class _Keys:
    """A JSON object whose keys match in any case, as in Go's decoder."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise NetConfError(f"error parsing subnet config: {where} is not a JSON object")
        self._where = where
        self._data: Mapping[str, Any] = {key.lower(): value for key, value in data.items()}

    def get(self, key: str, kind: type, default: Any) -> Any:
        value = self._data.get(key.lower())
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise NetConfError(
                f"error parsing subnet config: {self._where}{key} must be a {kind.__name__}",
            )
        return value


def parse(text: str) -> NetConf:
    """Raises NetConfError."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise NetConfError(f"error parsing subnet config: {error}") from error
    keys = _Keys(data, "")
    networks = tuple(_networks(keys))
    if not networks:
        raise NetConfError("none defined stack")
    # Without a Backend key, upstream's default is udp, which is obsolete and not supported here.
    backend = _Keys(keys.get("Backend", dict, {"Type": "udp"}), "Backend.")
    backend_type = backend.get("Type", str, "")
    if backend_type not in BACKENDS:
        raise NetConfError(
            f"unknown backend type: {backend_type} (supported are {', '.join(BACKENDS)})",
        )
    return NetConf(networks, backend_type, _vxlan(backend))


def _networks(keys: _Keys) -> Iterator[Network]:
    kinds: tuple[tuple[str, bool, str, type[Network]], ...] = (
        ("EnableIPv4", True, "Network", ipaddress.IPv4Network),
        ("EnableIPv6", False, "IPv6Network", ipaddress.IPv6Network),
    )
    for switch, default, key, kind in kinds:
        if keys.get(switch, bool, default):
            try:
                yield kind(keys.get(key, str, ""))
            except ValueError as error:
                text = f"please define a correct {key} parameter in the flannel config: {error}"
                raise NetConfError(text) from error


def _vxlan(keys: _Keys) -> VxlanBackend:
    vxlan = VxlanBackend(
        vni=keys.get("VNI", int, DEFAULT_VNI),
        port=keys.get("Port", int, 0) or DEFAULT_PORT,
        mtu=keys.get("MTU", int, 0),
        direct_routing=keys.get("DirectRouting", bool, False),
        learning=keys.get("Learning", bool, False),
        gbp=keys.get("GBP", bool, False),
    )
    if not 0 < vxlan.vni < 1 << 24:
        raise NetConfError(f"Backend.VNI must be from 1 to {(1 << 24) - 1}, not {vxlan.vni}")
    if not 0 < vxlan.port < 1 << 16:
        raise NetConfError(f"Backend.Port must be from 1 to 65535, not {vxlan.port}")
    return vxlan


def load(path: str | Path) -> NetConf:
    """Raises NetConfError, with upstream's text when the file cannot be read."""
    try:
        return parse(Path(path).read_text())
    except OSError as error:
        raise NetConfError(
            f"failed to read net conf: open {path}: {(error.strerror or '').lower()}",
        ) from error
