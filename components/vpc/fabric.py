"""The VPC as kernel state of the lab's switches: pure text, computed from the model.

A subnet is a bridge; an interface is a veth whose one end is a port of the bridge and whose other
end is the node's ethN. An Ethernet switch learns and floods: any host may claim any address by
answering ARP. A cloud's network does neither, because the provider knows every address. Three
mechanisms turn the bridge into that, and all of them are needed:

- The mapping service: the bridge itself answers every ARP request, with the MAC of the interface
  that has the address (`proxy_arp` of a bridge port answers from the bridge's permanent neighbours;
  static FDB entries lead to the port). Other hosts never see the request, so a host cannot attract
  traffic by a false answer.
- The source check: a port may send only from its interface's addresses. It is what forces pods of a
  secondary interface to leave by that interface (networks/aws_vpc_cni/dataplane.py).
- Security groups: a packet to a port must be a reply, or allowed by a rule of one of its groups.
  Bridges have no conntrack in many kernels, so the first packet of a flow writes its reversed
  addresses and ports into a set with a timeout, and a reply is what is in the set.

Each change is one nftables transaction, because a moment without rules would let packets through.
(https://docs.aws.amazon.com/vpc/latest/userguide/vpc-security-groups.html;
https://wiki.nftables.org, bridge filtering)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kubewire.components.vpc.model import Interface, Rule, Vpc

#: AWS tracks established TCP connections for five days and other flows for minutes; here all flows
#: have this timeout.
FLOW_SECONDS = 350


@dataclass(frozen=True)
class Mapping:
    """The switches' entries. neighbours: (switch, address, MAC); fdb: (port, MAC)."""

    neighbours: frozenset[tuple[str, str, str]] = frozenset()
    fdb: frozenset[tuple[str, str]] = frozenset()


def mapping(vpc: Vpc) -> Mapping:
    """The entries of all attached interfaces and of the router's: the switch answers for no other
    address."""
    attached = [interface for interface in vpc.interfaces.values() if interface.instance]
    neighbours = {
        (interface.subnet.switch, address, interface.mac)
        for interface in attached
        for address in interface.addresses()
    }
    neighbours |= {
        (subnet.switch, subnet.router[0], subnet.router[1]) for subnet in vpc.subnets.values()
    }
    fdb = {(interface.port, interface.mac) for interface in attached}
    fdb |= {(subnet.router[2], subnet.router[1]) for subnet in vpc.subnets.values()}
    return Mapping(frozenset(neighbours), frozenset(fdb))


def routes(vpc: Vpc) -> str:
    """`ip -batch` input for the VPC router."""
    return _text(
        f"route replace {cidr} via {vpc.interfaces[name].primary}"
        for cidr, name in sorted(vpc.routes.items())
    )


def difference(now: Mapping, wanted: Mapping) -> tuple[str, str]:
    """The input of `ip -batch` and of `bridge -batch` that changes now into wanted."""
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
    fdb = [
        f"fdb replace {mac} dev {port} master static" for port, mac in sorted(wanted.fdb - now.fdb)
    ]
    return _text(lines), _text(fdb)


def rules(vpc: Vpc) -> str:
    """`nft -f` input, one transaction: replaces all rules and members, and keeps the tracked
    flows."""
    attached = sorted(
        (interface for interface in vpc.interfaces.values() if interface.instance),
        key=lambda interface: interface.port,
    )
    members = dict(_members(vpc, attached))
    lines = ["add table bridge vpc", "flush table bridge vpc", "table bridge vpc {"]
    lines += [
        f"  set {name} {{ type {kind};{' flags interval;' if name == 'routed' else ''} }}"
        for name, (kind, _) in members.items()
    ]
    lines += [*_flow_sets(), *_chains(vpc, attached), "}"]
    for name, (_, elements) in members.items():
        lines.append(f"flush set bridge vpc {name}")
        if elements:
            lines.append(f"add element bridge vpc {name} {{ {', '.join(elements)} }}")
    return _text(lines)


def _members(vpc: Vpc, attached: list[Interface]) -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """(name, (type, elements)) of each set."""
    yield "interfaces", ("ifname", [f'"{interface.port}"' for interface in attached])
    unchecked = [f'"{interface.port}"' for interface in attached if not interface.source_check]
    yield "unchecked", ("ifname", unchecked)
    owned = [
        f'"{interface.port}" . {address}'
        for interface in attached
        for address in interface.addresses()
    ]
    yield "owned", ("ifname . ipv4_addr", owned)
    routed = [
        f'"{vpc.interfaces[name].port}" . {cidr}' for cidr, name in sorted(vpc.routes.items())
    ]
    yield "routed", ("ifname . ipv4_addr", routed)
    for name in vpc.groups:
        members = [
            address
            for interface in attached
            if name in interface.groups
            for address in interface.addresses()
        ]
        yield f"members_{_word(name)}", ("ipv4_addr", members)


def _flow_sets() -> Iterator[str]:
    kind = "ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service"
    yield f"  set flows {{ type {kind}; flags dynamic, timeout; timeout {FLOW_SECONDS}s; size 65535; }}"
    yield "  set pings { type ipv4_addr . ipv4_addr; flags dynamic, timeout; timeout 30s; size 65535; }"


def _chains(vpc: Vpc, attached: list[Interface]) -> Iterator[str]:
    for name, allowed in vpc.groups.items():
        yield f"  chain group_{_word(name)} {{"
        yield from (f"    {_match(rule, vpc)} accept" for rule in sorted(allowed))
        yield "  }"
    for interface in attached:
        yield f"  chain in_{_word(interface.id)} {{"
        yield from (f"    jump group_{_word(group)}" for group in interface.groups)
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
    if attached:
        verdicts = ", ".join(
            f'"{interface.port}" : jump in_{_word(interface.id)}' for interface in attached
        )
        yield f"    oifname vmap {{ {verdicts} }}"
    yield "  }"


def _match(rule: Rule, vpc: Vpc) -> str:
    source = (
        f"ip saddr @members_{_word(rule.source)}"
        if rule.source in vpc.groups
        else f"ip saddr {rule.source}"
    )
    if rule.protocol == "-1":
        return source
    if rule.protocol == "icmp":
        return f"{source} ip protocol icmp"
    ports = (
        f" {rule.protocol} dport {rule.ports[0]}-{rule.ports[1]}" if rule.ports != (0, 0) else ""
    )
    return f"{source} meta l4proto {rule.protocol}{ports}"


def _word(name: str) -> str:
    return name.replace("-", "_")


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
