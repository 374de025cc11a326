"""Learned routes in the kernel: `ip -batch` text that changes the present routes to the wanted
ones, and its applier.

The routes carry RTPROT_BIRD (12), as those of calico-node's BIRD do: `ip route show proto bird`. By
that number the daemon recognizes its own routes, also those of an earlier process.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubewire.components.bgp.config import KernelRule, Prefix
from kubewire.components.kernel import forwarding, iproute
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.forwarding import Forwarding, Route

log = logging.getLogger(__name__)

RTPROT_BIRD = 12


@dataclass(frozen=True, order=True)
class Hop:
    """device: a tunnel; its gateway counts as reachable (onlink) although no address of the device
    says so."""

    gateway: str
    device: str = ""


#: Prefix -> next hops. An empty tuple is a blackhole.
Table = Mapping[Prefix, tuple[Hop, ...]]


@dataclass(frozen=True)
class Surroundings:
    """The kernel's other routes: connected networks, and (destination, gateway) pairs."""

    connected: tuple[Prefix, ...] = ()
    gateways: tuple[tuple[Prefix, str], ...] = ()

    def has(self, prefix: Prefix) -> bool:
        return prefix in self.connected or any(
            prefix == destination for destination, _ in self.gateways
        )

    def is_connected(self, address: str) -> bool:
        return _longest(address, self.connected) is not None

    def resolve(self, address: str) -> str:
        """The gateway to an address that is on no link, by the longest match (RFC 4271, 5.1.3),
        else the address itself."""
        if self.is_connected(address):
            return address
        network = _longest(address, [destination for destination, _ in self.gateways])
        return dict(self.gateways)[network] if network is not None else address


def _longest(address: str, networks: Iterable[Prefix]) -> Prefix | None:
    ip = ipaddress.ip_address(address)
    return max(
        (network for network in networks if ip in network),
        key=lambda network: network.prefixlen,
        default=None,
    )


def table(
    next_hops: Mapping[Prefix, tuple[str, ...]],
    blackholes: Iterable[Prefix],
    rules: Sequence[KernelRule],
    around: Surroundings,
) -> dict[Prefix, tuple[Hop, ...]]:
    """The wanted kernel routes. Prefixes for which another program has a route are left out (BIRD:
    alien routes)."""
    routes: dict[Prefix, tuple[Hop, ...]] = dict.fromkeys(blackholes, ())
    for prefix, addresses in next_hops.items():
        rule = next((rule for rule in rules if rule.match.matches(prefix)), None)
        if (rule is None or rule.match.accept) and not around.has(prefix):
            routes[prefix] = tuple(sorted({_hop(address, rule, around) for address in addresses}))
    return routes


def _hop(address: str, rule: KernelRule | None, around: Surroundings) -> Hop:
    if (
        rule is not None
        and rule.tunnel
        and not (rule.cross_subnet and around.is_connected(address))
    ):
        return Hop(address, rule.tunnel)
    return Hop(around.resolve(address))


def parse(entries: list[dict[str, Any]], version: int) -> dict[Prefix, tuple[Hop, ...]]:
    """The routes in `ip -json route` of this protocol."""
    routes: dict[Prefix, tuple[Hop, ...]] = {}
    for entry in entries:
        hops = () if entry.get("type") == "blackhole" else entry.get("nexthops", [entry])
        routes[_destination(entry, version)] = tuple(sorted(_parsed_hop(hop) for hop in hops))
    return routes


def _destination(entry: Mapping[str, Any], version: int) -> Prefix:
    text = entry["dst"]
    return ipaddress.ip_network(
        ("0.0.0.0/0" if version == 4 else "::/0") if text == "default" else text,
    )


def _parsed_hop(hop: Mapping[str, Any]) -> Hop:
    gateway = str(hop.get("gateway") or hop.get("via", {}).get("host", ""))
    return Hop(gateway, hop["dev"] if "onlink" in hop.get("flags", ()) else "")


def parse_surroundings(entries: list[dict[str, Any]], version: int) -> Surroundings:
    """The routes in `ip -json route` of other protocols."""
    others = [entry for entry in entries if entry.get("protocol") != "bird" and "type" not in entry]
    connected = [
        _destination(entry, version)
        for entry in others
        if "dev" in entry and "gateway" not in entry
    ]
    gateways = [
        (_destination(entry, version), str(entry["gateway"]))
        for entry in others
        if "gateway" in entry
    ]
    return Surroundings(tuple(connected), tuple(gateways))


def changes(actual: Table, wanted: Table) -> str:
    """Lines of `ip -batch`: first new and different routes, then deletions."""
    return forwarding.difference(_forwarding(actual), _forwarding(wanted)).ip


def _forwarding(table: Table) -> Forwarding:
    return Forwarding(
        frozenset(
            Route(
                str(prefix),
                tuple(
                    forwarding.Hop(hop.gateway, hop.device, onlink=bool(hop.device)) for hop in hops
                ),
                str(RTPROT_BIRD),
            )
            for prefix, hops in table.items()
        ),
    )


async def read(versions: Iterable[int]) -> tuple[dict[Prefix, tuple[Hop, ...]], Surroundings]:
    """This daemon's kernel routes and the other routes, of these IP versions. Raises
    CommandError."""
    ours: dict[Prefix, tuple[Hop, ...]] = {}
    around = Surroundings()
    for version in versions:
        entries = await iproute.query("ip", f"-{version}", "route", "show")
        ours |= parse([entry for entry in entries if entry.get("protocol") == "bird"], version)
        found = parse_surroundings(entries, version)
        around = Surroundings(around.connected + found.connected, around.gateways + found.gateways)
    return ours, around


async def apply(actual: Table, wanted: Table) -> None:
    """Tries every line; lines that the kernel refuses are logged."""
    text = changes(actual, wanted)
    if not text:
        return
    log.info("routes:\n%s", text.rstrip())
    try:
        await iproute.batch("ip", text)
    except CommandError as error:
        log.warning("the kernel refused routes: %s", error.said)
