"""The daemon's configuration file (YAML, so JSON too) as frozen values."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubewire.components.base import yamlfile

Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(Exception):
    """The file is invalid; the text names the key and the fault."""


@dataclass(frozen=True)
class Rule:
    """A line of a prefix list: matches the prefix exactly, or prefixes inside it with a length from
    ge to le."""

    prefix: Prefix
    accept: bool
    ge: int | None = None
    le: int | None = None

    def matches(self, prefix: Prefix) -> bool:
        if prefix.version != self.prefix.version or not prefix.subnet_of(self.prefix):  # type: ignore[arg-type]
            return False
        if self.ge is None and self.le is None:
            return prefix.prefixlen == self.prefix.prefixlen
        return (
            (self.ge or self.prefix.prefixlen)
            <= prefix.prefixlen
            <= (self.le or prefix.max_prefixlen)
        )


@dataclass(frozen=True)
class Filter:
    """The first rule that matches decides, else the default."""

    rules: tuple[Rule, ...] = ()
    default_accept: bool = True

    def accepts(self, prefix: Prefix) -> bool:
        return next(
            (rule.accept for rule in self.rules if rule.matches(prefix)),
            self.default_accept,
        )


@dataclass(frozen=True)
class KernelRule:
    """Decides whether a learned route is installed in the kernel. The first match decides; the
    default is yes.

    tunnel: the device the route goes through. cross_subnet: only if its next hop is on no link of
    the node.
    """

    match: Rule
    tunnel: str = ""
    cross_subnet: bool = False


@dataclass(frozen=True)
class Announcement:
    """A prefix that this node announces. communities as integers (RFC 1997). next_hop "": the
    session's address.

    blackhole: the kernel drops packets to it for which it has no longer prefix.
    """

    prefix: Prefix
    communities: tuple[int, ...] = ()
    next_hop: str = ""
    blackhole: bool = False


@dataclass(frozen=True)
class Peer:
    """A neighbour. hold_time is in seconds; a third of it is the keepalive interval (RFC 4271, 4.4
    and 10).

    A hold time of 0 (no keepalives) is not supported: os-ken's timers would not stop. restart_time:
    for how many seconds each side keeps the routes of the other after a silent end (RFC 4724); 0:
    not negotiated.
    """

    name: str
    address: str
    remote_as: int
    local_address: str = ""
    passive: bool = False
    password: str = ""
    hold_time: int = 90
    restart_time: int = 120
    route_reflector_client: bool = False
    next_hop_self: bool = False
    imports: Filter = Filter()
    exports: Filter = Filter()


@dataclass(frozen=True)
class Configuration:
    """connect_retry is in seconds. listen () means no listening socket. max_paths 1 means no ECMP.
    families: the IP versions whose kernel routes this daemon owns; another daemon may own the other
    version."""

    local_as: int
    router_id: str
    listen: tuple[str, ...] = ("0.0.0.0", "::")
    cluster_id: str = ""
    connect_retry: int = 5
    max_paths: int = 16
    peers: tuple[Peer, ...] = ()
    announce: tuple[Announcement, ...] = ()
    kernel: tuple[KernelRule, ...] = ()
    families: tuple[int, ...] = (4, 6)

    @property
    def identity(self) -> tuple[object, ...]:
        """The values that a speaker cannot change while it runs."""
        return self.local_as, self.router_id, self.cluster_id, self.listen

    def peer(self, address: str) -> Peer | None:
        return next((peer for peer in self.peers if peer.address == address), None)


def load(path: Path) -> Configuration:
    """Raises ConfigError, also if the file cannot be read."""
    try:
        return parse(yamlfile.read_text(path), str(path))
    except yamlfile.YamlFileError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def parse(text: str, where: str = "configuration") -> Configuration:
    """where: the name of the file in errors. Raises ConfigError."""
    try:
        document = yamlfile.load(text, where)
    except yamlfile.YamlFileError as error:
        raise ConfigError(str(error)) from error
    keys = _Keys(document, "configuration")
    configuration = Configuration(
        local_as=keys.number("localAS", low=1, high=2**32 - 1),
        router_id=_identifier(keys, "routerID"),
        listen=tuple(map(_listened, keys.take("listen", list, list(Configuration.listen)))),
        cluster_id=_identifier(keys, "clusterID") if "clusterID" in keys else "",
        connect_retry=keys.number("connectRetry", 5, low=1),
        max_paths=keys.number("maxPaths", 16, low=1),
        peers=tuple(_peer(entry) for entry in keys.take("peers", list, [])),
        announce=tuple(_announcement(entry) for entry in keys.take("announce", list, [])),
        kernel=tuple(_kernel_rule(entry) for entry in keys.take("kernel", list, [])),
        families=_families(keys.take("families", list, ["ipv4", "ipv6"])),
    )
    keys.done()
    addresses = [peer.address for peer in configuration.peers]
    if twice := sorted({address for address in addresses if addresses.count(address) > 1}):
        raise ConfigError(f"peers: {twice[0]} is there twice")
    return configuration


def _identifier(keys: _Keys, key: str) -> str:
    """An identifier of four octets (RFC 4271, 4.2; RFC 4456, 7) that is not zero (RFC 6286,
    2.1)."""
    address = keys.address(key)
    if ":" in address or address in ("", "0.0.0.0"):
        raise ConfigError(
            f"configuration.{key}: {address!r} is not an IPv4 address other than 0.0.0.0",
        )
    return address


def _listened(address: Any) -> str:
    try:
        return str(ipaddress.ip_address(address if isinstance(address, str) else ""))
    except ValueError:
        raise ConfigError(
            f"configuration.listen: {address!r} is not an IPv4 or IPv6 address",
        ) from None


def _of_family(address: str, other: Prefix | str, where: str) -> None:
    """Raises ConfigError if the address is set and its IP version differs from the other
    value's."""
    if address and (":" in address) != (":" in str(other)):
        raise ConfigError(f"{where}: {address} and {other} are not both IPv4 or both IPv6")


def _families(names: list[Any]) -> tuple[int, ...]:
    known = {"ipv4": 4, "ipv6": 6}
    if not names or any(name not in tuple(known) for name in names):
        raise ConfigError(f"families: {names} is not a list of ipv4 and ipv6")
    return tuple(known[name] for name in names)


def _peer(document: Any) -> Peer:
    keys = _Keys(document, "peers")
    address = keys.address("address")
    if not address:
        raise ConfigError("peers.address: '' is not an IPv4 or IPv6 address")
    peer = Peer(
        name=keys.take("name", str, address),
        address=address,
        remote_as=keys.number("remoteAS", low=1, high=2**32 - 1),
        local_address=keys.address("localAddress", ""),
        passive=keys.take("passive", bool, False),
        password=keys.take("password", str, ""),
        hold_time=keys.number("holdTime", 90, low=3, high=65535),
        restart_time=_restart_time(keys),
        route_reflector_client=keys.take("routeReflectorClient", bool, False),
        next_hop_self=keys.take("nextHopSelf", bool, False),
        imports=_filter(keys.take("import", dict, {})),
        exports=_filter(keys.take("export", dict, {})),
    )
    keys.done()
    _of_family(peer.local_address, peer.address, "peers.localAddress")
    if len(peer.password.encode()) > 80:
        raise ConfigError("peers.password is longer than the 80 bytes of a TCP MD5 key (tcp(7))")
    return peer


def _restart_time(keys: _Keys) -> int:
    wanted = keys.take("gracefulRestart", bool, True)
    seconds = keys.number("restartTime", 120, low=0, high=4095)
    return seconds if wanted else 0


def _filter(document: Any) -> Filter:
    keys = _Keys(document, "import or export")
    rules = tuple(_rule(entry) for entry in keys.take("rules", list, []))
    default = keys.action("default", "accept")
    keys.done()
    return Filter(rules, default)


def _rule(document: Any) -> Rule:
    keys = _Keys(document, "rules")
    rule = _match(keys)
    keys.done()
    return rule


def _match(keys: _Keys, default: Any = None) -> Rule:
    """default: the action if none is given."""
    return Rule(
        keys.prefix("prefix"),
        keys.action("action", default) if default else keys.action("action"),
        keys.number("ge", 0, low=0, high=128) or None,
        keys.number("le", 0, low=0, high=128) or None,
    )


def _kernel_rule(document: Any) -> KernelRule:
    keys = _Keys(document, "kernel")
    rule = KernelRule(
        _match(keys, "accept"),
        keys.take("tunnel", str, ""),
        keys.take("crossSubnet", bool, False),
    )
    keys.done()
    return rule


def _announcement(document: Any) -> Announcement:
    keys = _Keys({"prefix": document} if isinstance(document, str) else document, "announce")
    communities = tuple(community(str(entry)) for entry in keys.take("communities", list, []))
    announcement = Announcement(
        keys.prefix("prefix"),
        communities,
        keys.address("nextHop", ""),
        keys.take("blackhole", bool, False),
    )
    keys.done()
    _of_family(announcement.next_hop, announcement.prefix, "announce.nextHop")
    return announcement


#: https://www.iana.org/assignments/bgp-well-known-communities
WELL_KNOWN = {
    "no-export": 0xFFFFFF01,
    "no-advertise": 0xFFFFFF02,
    "no-export-subconfed": 0xFFFFFF03,
}


def community(text: str) -> int:
    """ "64512:100" or a well-known name. Raises ConfigError."""
    if text in WELL_KNOWN:
        return WELL_KNOWN[text]
    high, _, low = text.partition(":")
    if not (high.isdigit() and low.isdigit() and int(high) < 65536 and int(low) < 65536):
        raise ConfigError(
            f"communities: {text!r} is neither AS:VALUE nor one of {', '.join(WELL_KNOWN)}",
        )
    return int(high) << 16 | int(low)


_REQUIRED: Any = object()


class _Keys:
    """Takes known keys out of a mapping; done() rejects the rest."""

    def __init__(self, document: Any, where: str) -> None:
        if not isinstance(document, Mapping):
            raise ConfigError(f"{where}: a mapping is wanted, not {document!r}")
        self._left = dict(document)
        self._where = where

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        if key not in self._left:
            if default is _REQUIRED:
                raise ConfigError(f"{self._where}.{key} is missing")
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ConfigError(f"{self._where}.{key}: {value!r} is not a {kind.__name__}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, *, low: int, high: int = 2**31) -> int:
        value: int = self.take(key, int, default)
        if not low <= value <= high:
            raise ConfigError(f"{self._where}.{key}: {value} is not from {low} to {high}")
        return value

    def address(self, key: str, default: Any = _REQUIRED) -> str:
        value: str = self.take(key, str, default)
        try:
            return str(ipaddress.ip_address(value)) if value else ""
        except ValueError as error:
            raise ConfigError(f"{self._where}.{key}: {error}") from error

    def prefix(self, key: str) -> Prefix:
        try:
            return ipaddress.ip_network(self.take(key, str))
        except ValueError as error:
            raise ConfigError(f"{self._where}.{key}: {error}") from error

    def action(self, key: str, default: Any = _REQUIRED) -> bool:
        value: str = self.take(key, str, default)
        if value not in ("accept", "reject"):
            raise ConfigError(f"{self._where}.{key}: {value!r} is neither accept nor reject")
        return value == "accept"

    def done(self) -> None:
        if self._left:
            raise ConfigError(f"{self._where}: unknown key {sorted(map(str, self._left))[0]}")
