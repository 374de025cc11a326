"""The routes that a host gets if its description gives none, and what becomes of a packet.

computed() finds the shortest way, counted in routers, to every subnet of the topology. Equally long
ways are decided by the order of the routers. If all ways of a family begin with the same gateway,
one default route stands for them. A node without any gateway gets a default route onto its first
link: a ClusterIP has no subnet, and the kernel refuses to send before kube-proxy's rules can
translate the address if no route leads there (`Network is unreachable`).

problem() follows a packet through a plan by the longest matching prefix, as the kernel does. Only
routers forward it.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from kubewire.topologies.plan import Interface, Machine, bare
from kubewire.topologies.ranges import Range

#: (host, interface) -> the number of its segment.
Adjacent = Mapping[tuple[str, str], int]


def computed(
    machine: Machine, machines: Sequence[Machine], adjacent: Adjacent
) -> tuple[tuple[str, str], ...]:
    """(destination, gateway or interface) of one machine."""
    found: list[tuple[str, str]] = []
    for version in (4, 6):
        own = {network for _, network in _networks(machine, version)}
        if not own:
            continue
        gateways = _gateways(machine, machines, adjacent, version)
        ways = [(str(network), via) for network, via in gateways.items() if network not in own]
        if ways and len({via for _, via in ways}) == 1:
            found.append(("default", ways[0][1]))
        elif ways:
            found += ways
        elif machine.is_node and version == 4:
            found.append(("default", machine.interfaces[0].name))
        elif machine.is_node:
            found.append(("::/0", machine.interfaces[0].name))
    return tuple(found)


def _networks(machine: Machine, version: int) -> Iterator[tuple[Interface, Range]]:
    for interface in machine.interfaces:
        for address in interface.addresses:
            network = ipaddress.ip_interface(address).network
            if network.version == version:
                yield interface, network


def _gateways(
    machine: Machine, machines: Sequence[Machine], adjacent: Adjacent, version: int
) -> dict[Range, str]:
    """Subnet -> the first gateway on the shortest way there, breadth first."""
    found: dict[Range, str] = {}
    seen = {machine.name}
    queue = deque([(machine, "")])
    while queue:
        here, first = queue.popleft()
        for _, network in _networks(here, version):
            if first:
                found.setdefault(network, first)
        for other, address in _neighbours(here, machines, adjacent, version):
            if other.name not in seen:
                seen.add(other.name)
                queue.append((other, first or address))
    return found


def _neighbours(
    here: Machine, machines: Sequence[Machine], adjacent: Adjacent, version: int
) -> Iterator[tuple[Machine, str]]:
    """The routers that share a segment and a subnet, with their address there."""
    routers = [machine for machine in machines if machine.role == "router" and machine is not here]
    for interface, network in _networks(here, version):
        segment = adjacent[here.name, interface.name]
        for other in routers:
            for theirs, their_network in _networks(other, version):
                if adjacent[other.name, theirs.name] != segment:
                    continue
                (address,) = [
                    one
                    for one in theirs.addresses
                    if ipaddress.ip_interface(one).network == their_network
                ]
                if ipaddress.ip_interface(address).ip in network:
                    yield other, bare(address)


def problem(machines: Sequence[Machine], source: Machine, address: str) -> str:
    """Why a packet from source does not arrive at an address of another machine, "" if it does."""
    owners = {
        bare(one): machine
        for machine in machines
        for i in machine.interfaces
        for one in i.addresses
    }
    wanted = ipaddress.ip_address(address)
    here = source
    for _ in machines:
        if owners[address] is here:
            return ""
        if here is not source and here.role != "router":
            return f"{here.name} gets it and does not forward, because it is no router"
        via = _next_hop(here, wanted)
        if via is None:
            return f"{here.name} has no route to {address}"
        following = owners.get(via or address)
        if following is None:
            return f"{here.name} sends it to {via}, which no host has"
        here = following
    return f"its routes form a loop through {here.name}"


def _next_hop(
    machine: Machine, target: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> str | None:
    """The gateway of the longest matching route, "" on the link, None without a route."""
    best: tuple[int, str] | None = None
    for _, network in _networks(machine, target.version):
        if target in network:
            best = max(best or (-1, ""), (network.prefixlen, ""))
    names = {interface.name for interface in machine.interfaces}
    for destination, via in machine.routes:
        network = _destination(destination, via)
        if (
            network.version == target.version
            and target in network
            and (best is None or network.prefixlen > best[0])
        ):
            best = (network.prefixlen, "" if via in names else via)
    return None if best is None else best[1]


def _destination(text: str, via: str) -> Range:
    """A default route is of its gateway's family, and of IPv4 if it leads to an interface."""
    return ipaddress.ip_network(
        ("::/0" if ":" in via else "0.0.0.0/0") if text == "default" else text
    )
