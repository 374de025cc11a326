"""Learned routes in the kernel: a batch for ip(8) from what is to what should be, and its applier.

The routes carry RTPROT_BIRD (12), as those of calico-node's BIRD do: `ip route show proto bird`.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.bgp.config import KernelRule, Prefix
from components.kernel import command

log = logging.getLogger(__name__)

RTPROT_BIRD = 12


@dataclass(frozen=True, order=True)
class Hop:
    """device: a tunnel, through which the gateway is reached whatever the kernel thinks of it (onlink)."""

    gateway: str
    device: str = ""

    def __str__(self) -> str:
        return f"via {self.gateway}" + (f" dev {self.device} onlink" if self.device else "")


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
    return max((network for network in networks if ip in network), key=lambda network: network.prefixlen, default=None)


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
    return ipaddress.ip_network(("0.0.0.0/0" if version == 4 else "::/0") if text == "default" else text)


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
    lines: list[str] = []
    for prefix, hops in wanted.items():
        if actual.get(prefix) != hops:
            if prefix in actual and not (actual[prefix] and hops):
                # Not replaced: a blackhole and a route with next hops would stand side by side.
                lines.append(f"route del {prefix} proto {RTPROT_BIRD}")
            lines.append(_replace(prefix, hops))
    lines += [f"route del {prefix} proto {RTPROT_BIRD}" for prefix in actual if prefix not in wanted]
    return "".join(f"{line}\n" for line in lines)


def _replace(prefix: Prefix, hops: tuple[Hop, ...]) -> str:
    if not hops:
        return f"route replace blackhole {prefix} proto {RTPROT_BIRD}"
    head = f"route replace {prefix} proto {RTPROT_BIRD}"
    if len(hops) == 1:
        return f"{head} {hops[0]}"
    return head + "".join(f" nexthop {hop}" for hop in hops)


async def read(versions: Iterable[int]) -> tuple[dict[Prefix, tuple[Hop, ...]], Surroundings]:
    """The routes of ours that the kernel has, and the others, of these IP versions. Raises CommandError."""
    ours: dict[Prefix, tuple[Hop, ...]] = {}
    around = Surroundings()
    for version in versions:
        completed = await command.run(["ip", "-json", f"-{version}", "route", "show"], timeout=10, check=True)
        entries = [entry for entry in json.loads(completed.stdout or b"[]") if entry]
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
    completed = await command.run(["ip", "-force", "-batch", "-"], stdin=text.encode(), timeout=30)
    if completed.returncode:
        log.warning("the kernel refused routes: %s", completed.stderr.decode(errors="replace").strip())
