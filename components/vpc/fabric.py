"""The VPC as kernel state of the lab's switches: pure text from the books.

A subnet is a bridge, an interface a veth whose other end is the node's ethN. What makes a VPC of it:

- the mapping service: the bridge answers ARP itself, for each address with the MAC of the interface that has it
  (`proxy_arp` of a bridge port, neighbours of the bridge, static FDB entries);
- the source check: a port may send with the addresses of its interface alone;
- security groups: what a port is sent must be asked for, or allowed by a rule (`table bridge vpc`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kubewire.components.vpc.model import Interface, Rule, Vpc

#: AWS tracks an established TCP connection for five days and others for minutes; here all of them for this long.
FLOW_SECONDS = 350


@dataclass(frozen=True)
class Mapping:
    """Of the switches. neighbours: (switch, address, MAC); fdb: (port, MAC)."""

    neighbours: frozenset[tuple[str, str, str]] = frozenset()
    fdb: frozenset[tuple[str, str]] = frozenset()


def mapping(vpc: Vpc) -> Mapping:
    """Of all interfaces that are plugged in, and of the router's: nobody else is asked."""
    there = [one for one in vpc.interfaces.values() if one.instance]
    neighbours = {(one.subnet.switch, address, one.mac) for one in there for address in one.addresses()}
    neighbours |= {(subnet.switch, subnet.router[0], subnet.router[1]) for subnet in vpc.subnets.values()}
    fdb = {(one.port, one.mac) for one in there} | {(one.router[2], one.router[1]) for one in vpc.subnets.values()}
    return Mapping(frozenset(neighbours), frozenset(fdb))


def routes(vpc: Vpc) -> str:
    """`ip -batch` of the VPC router."""
    return _text(
        f"route replace {cidr} via {vpc.interfaces[name].primary}" for cidr, name in sorted(vpc.routes.items())
    )


def difference(now: Mapping, wanted: Mapping) -> tuple[str, str]:
    """Input of `ip -batch` and of `bridge -batch`."""
    known = {(switch, address) for switch, address, _ in wanted.neighbours}
    lines = [
        f"neigh replace {address} lladdr {mac} dev {switch} nud permanent"
        for switch, address, mac in sorted(wanted.neighbours - now.neighbours)
    ]
    lines += [
        f"neigh delete {address} dev {switch}"
        for switch, address, _ in sorted(now.neighbours - wanted.neighbours)
        if (switch, address) not in known
    ]
    fdb = [f"fdb replace {mac} dev {port} master static" for port, mac in sorted(wanted.fdb - now.fdb)]
    return _text(lines), _text(fdb)


def rules(vpc: Vpc) -> str:
    """`nft -f` input, one transaction: all rules and members anew; flows that are under way stay known."""
    there = sorted(
        (one for one in vpc.interfaces.values() if one.instance),
        key=lambda one: one.port,
    )
    members = dict(_members(vpc, there))
    lines = ["add table bridge vpc", "flush table bridge vpc", "table bridge vpc {"]
    lines += [
        f"  set {name} {{ type {kind};{' flags interval;' if name == 'routed' else ''} }}"
        for name, (kind, _) in members.items()
    ]
    lines += [*_flow_sets(), *_chains(vpc, there), "}"]
    for name, (_, elements) in members.items():
        lines.append(f"flush set bridge vpc {name}")
        if elements:
            lines.append(f"add element bridge vpc {name} {{ {', '.join(elements)} }}")
    return _text(lines)


def _members(vpc: Vpc, there: list[Interface]) -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Sets: name, type, elements."""
    yield "interfaces", ("ifname", [f'"{one.port}"' for one in there])
    yield "unchecked", ("ifname", [f'"{one.port}"' for one in there if not one.source_check])
    owned = [f'"{one.port}" . {address}' for one in there for address in one.addresses()]
    yield "owned", ("ifname . ipv4_addr", owned)
    routed = [f'"{vpc.interfaces[name].port}" . {cidr}' for cidr, name in sorted(vpc.routes.items())]
    yield "routed", ("ifname . ipv4_addr", routed)
    for name in vpc.groups:
        members = [address for one in there if name in one.groups for address in one.addresses()]
        yield f"members_{_word(name)}", ("ipv4_addr", members)


def _flow_sets() -> Iterator[str]:
    kind = "ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service"
    yield f"  set flows {{ type {kind}; flags dynamic, timeout; timeout {FLOW_SECONDS}s; size 65535; }}"
    yield "  set pings { type ipv4_addr . ipv4_addr; flags dynamic, timeout; timeout 30s; size 65535; }"


def _chains(vpc: Vpc, there: list[Interface]) -> Iterator[str]:
    for name, allowed in vpc.groups.items():
        yield f"  chain group_{_word(name)} {{"
        yield from (f"    {_match(rule, vpc)} accept" for rule in sorted(allowed))
        yield "  }"
    for one in there:
        yield f"  chain in_{_word(one.id)} {{"
        yield from (f"    jump group_{_word(group)}" for group in one.groups)
        yield '    counter drop comment "no security group rule"'
        yield "  }"
    yield "  chain source_check {"
    yield "    type filter hook prerouting priority -300; policy accept;"
    yield "    iifname != @interfaces accept"
    yield "    iifname @unchecked accept"
    yield "    ether type ip iifname . ip saddr @routed accept"
    yield "    ether type ip iifname . ip saddr != @owned counter drop"
    yield "    ether type arp iifname . arp saddr ip != @owned counter drop"
    yield "  }"
    yield "  chain security {"
    yield "    type filter hook forward priority 0; policy accept;"
    yield "    ether type != ip accept"
    back = "ip daddr . ip saddr . meta l4proto . th dport . th sport"
    yield f"    iifname @interfaces meta l4proto {{ tcp, udp }} update @flows {{ {back} }}"
    yield "    iifname @interfaces ip protocol icmp update @pings { ip daddr . ip saddr }"
    yield "    oifname != @interfaces accept"
    yield "    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept"
    yield "    ip saddr . ip daddr . meta l4proto . th sport . th dport @flows accept"
    yield "    icmp type echo-reply ip saddr . ip daddr @pings accept"
    if there:
        verdicts = ", ".join(f'"{one.port}" : jump in_{_word(one.id)}' for one in there)
        yield f"    oifname vmap {{ {verdicts} }}"
    yield "  }"


def _match(rule: Rule, vpc: Vpc) -> str:
    source = f"ip saddr @members_{_word(rule.source)}" if rule.source in vpc.groups else f"ip saddr {rule.source}"
    if rule.protocol == "-1":
        return source
    if rule.protocol == "icmp":
        return f"{source} ip protocol icmp"
    ports = f" {rule.protocol} dport {rule.ports[0]}-{rule.ports[1]}" if rule.ports != (0, 0) else ""
    return f"{source} meta l4proto {rule.protocol}{ports}"


def _word(name: str) -> str:
    return name.replace("-", "_")


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
