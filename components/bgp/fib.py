"""Learned routes in the kernel: a batch for ip(8) from what is to what should be, and its applier.

The routes carry RTPROT_BIRD (12), as those of calico-node's BIRD do: `ip route show proto bird`.
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
    """device: a tunnel, through which the gateway is reached whatever the kernel thinks of it (onlink)."""

    gateway: str
    device: str = ""


#: Prefix -> next hops; none: a blackhole.
Table = Mapping[Prefix, tuple[Hop, ...]]


@dataclass(frozen=True)
class Surroundings:
    """What the kernel has besides: connected networks, and other routes as (destination, gateway)."""

    connected: tuple[Prefix, ...] = ()
    gateways: tuple[tuple[Prefix, str], ...] = ()

    def has(self, prefix: Prefix) -> bool:
        return prefix in self.connected or any(prefix == destination for destination, _ in self.gateways)

    def is_connected(self, address: str) -> bool:
        return _longest(address, self.connected) is not None

    def resolve(self, address: str) -> str:
        """The gateway to an address on no link of ours, by the longest match (RFC 4271, 5.1.3); itself without one."""
        if self.is_connected(address):
            return address
        found = _longest(address, [destination for destination, _ in self.gateways])
        return dict(self.gateways)[found] if found is not None else address


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
    """What the kernel is to have of what was selected. What somebody else has put there is his (BIRD: alien routes)."""
    found: dict[Prefix, tuple[Hop, ...]] = dict.fromkeys(blackholes, ())
    for prefix, addresses in next_hops.items():
        rule = next((rule for rule in rules if rule.match.matches(prefix)), None)
        if (rule is None or rule.match.accept) and not around.has(prefix):
            found[prefix] = tuple(sorted({_hop(address, rule, around) for address in addresses}))
    return found


def _hop(address: str, rule: KernelRule | None, around: Surroundings) -> Hop:
    if rule is not None and rule.tunnel and not (rule.cross_subnet and around.is_connected(address)):
        return Hop(address, rule.tunnel)
    return Hop(around.resolve(address))


def parse(entries: list[dict[str, Any]], version: int) -> dict[Prefix, tuple[Hop, ...]]:
    """`ip -json route` of our protocol."""
    found: dict[Prefix, tuple[Hop, ...]] = {}
    for entry in entries:
        hops = () if entry.get("type") == "blackhole" else entry.get("nexthops", [entry])
        found[_destination(entry, version)] = tuple(sorted(_parsed_hop(hop) for hop in hops))
    return found


def _destination(entry: Mapping[str, Any], version: int) -> Prefix:
    text = entry["dst"]
    return ipaddress.ip_network(
        ("0.0.0.0/0" if version == 4 else "::/0") if text == "default" else text,
    )


def _parsed_hop(hop: Mapping[str, Any]) -> Hop:
    gateway = str(hop.get("gateway") or hop.get("via", {}).get("host", ""))
    return Hop(gateway, hop["dev"] if "onlink" in hop.get("flags", ()) else "")


def parse_surroundings(entries: list[dict[str, Any]], version: int) -> Surroundings:
    """Of `ip -json route`, what other protocols put there."""
    others = [entry for entry in entries if entry.get("protocol") != "bird" and "type" not in entry]
    connected = [_destination(entry, version) for entry in others if "dev" in entry and "gateway" not in entry]
    gateways = [(_destination(entry, version), str(entry["gateway"])) for entry in others if "gateway" in entry]
    return Surroundings(tuple(connected), tuple(gateways))


def changes(actual: Table, wanted: Table) -> str:
    """Lines of `ip -batch`: what is new or different first, then what goes."""
    return forwarding.difference(_forwarding(actual), _forwarding(wanted)).ip


def _forwarding(table: Table) -> Forwarding:
    return Forwarding(
        frozenset(
            Route(
                str(prefix),
                tuple(forwarding.Hop(hop.gateway, hop.device, onlink=bool(hop.device)) for hop in hops),
                str(RTPROT_BIRD),
            )
            for prefix, hops in table.items()
        ),
    )


async def read(versions: Iterable[int]) -> tuple[dict[Prefix, tuple[Hop, ...]], Surroundings]:
    """The routes of ours that the kernel has, and the others, of these IP versions. Raises CommandError."""
    ours: dict[Prefix, tuple[Hop, ...]] = {}
    around = Surroundings()
    for version in versions:
        entries = await iproute.query("ip", f"-{version}", "route", "show")
        ours |= parse([entry for entry in entries if entry.get("protocol") == "bird"], version)
        found = parse_surroundings(entries, version)
        around = Surroundings(around.connected + found.connected, around.gateways + found.gateways)
    return ours, around


async def apply(actual: Table, wanted: Table) -> None:
    """Every line is tried; what the kernel refuses is logged."""
    text = changes(actual, wanted)
    if not text:
        return
    log.info("routes:\n%s", text.rstrip())
    try:
        await iproute.batch("ip", text)
    except CommandError as error:
        log.warning("the kernel refused routes: %s", error.said)
