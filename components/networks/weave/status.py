"""The output of `weave status`, in upstream's columns and words (weaveworks/weave,
prog/weaver/http.go). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubewire.components.networks.weave.allocator import Allocator
from kubewire.components.networks.weave.topology import Peer

if TYPE_CHECKING:
    from kubewire.components.networks.weave.mesh import Mesh

_STATES = ("established", "pending", "retrying", "failed", "connecting")


@dataclass(frozen=True)
class ConnectionLine:
    """One line of `status connections`."""

    outbound: bool
    address: str
    state: str
    info: str
    attributes: str = ""

    def __str__(self) -> str:
        arrow = "->" if self.outbound else "<-"
        return f"{arrow} {self.address:<21} {self.state:<11} {self.info} {self.attributes}".rstrip()


def status(
    allocator: Allocator,
    peers: Sequence[Peer],
    connections: Sequence[ConnectionLine],
    *,
    encrypted: bool,
    targets: int,
    waiting: int,
    subnet: str,
) -> str:
    """waiting: the number of requests that wait for an address."""
    setup = allocator.setup
    links = Counter(
        "established" if link.established else "pending" for peer in peers for link in peer.links
    )
    counts = _counts(Counter(line.state for line in connections), _STATES)
    between = _counts(links, ("established", "pending"))
    return "\n".join(
        [
            "        Version: kubewire",
            "",
            "        Service: router",
            "       Protocol: weave 2",
            f"           Name: {setup.name}({setup.nickname})",
            f"     Encryption: {'enabled' if encrypted else 'disabled'}",
            "  PeerDiscovery: disabled",
            f"        Targets: {targets}",
            f"    Connections: {len(connections)}{counts and f' ({counts})'}",
            f"          Peers: {len(peers)}{between and f' (with {between} connections)'}",
            " TrustedSubnets: none",
            "",
            "        Service: ipam",
            f"         Status: {_state(allocator, waiting)}",
            f"          Range: {setup.universe}",
            f"  DefaultSubnet: {subnet}",
            "",
        ],
    )


def _state(allocator: Allocator, waiting: int) -> str:
    ring = allocator.ring
    known = allocator.setup.is_known
    if not ring.is_empty:
        if not any(
            entry.peer == allocator.setup.name or known(entry.peer) for entry in ring.entries
        ):
            return "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"
        return "waiting for IP range grant from peers" if waiting else "ready"
    if not allocator.awaiting_consensus:
        return "idle"
    if allocator.paxos is None:
        return "priming"
    return f"awaiting consensus (quorum: {allocator.paxos.quorum}, known: {len(allocator.paxos.knows)})"


def _counts(counter: Counter[str], order: Iterable[str]) -> str:
    return ", ".join(f"{counter[key]} {key}" for key in order if counter[key])


def connections(mesh: Mesh, port: int, mtu: int) -> list[ConnectionLine]:
    """`status connections`: what is connected, then the targets that are not."""
    sealed = "encrypted   " if mesh.password else ""
    lines = [
        ConnectionLine(
            one.outbound,
            one.address,
            "established" if one.established else "pending",
            f"{sealed}{one.way} {one.peer}({one.hello.nickname})",
            f"mtu={mtu}",
        )
        for one in sorted(mesh.connections.values(), key=lambda one: one.address)
    ]
    there = {one.ip for one in mesh.connections.values()}
    for address, target in sorted(mesh.targets.items()):
        if address not in there:
            lines.append(ConnectionLine(True, f"{address}:{port}", target.state, target.info))
    return lines


def peers(known: Iterable[Peer]) -> str:
    """`status peers`."""
    ordered = sorted(known, key=lambda peer: peer.name)
    nicknames = {peer.name: peer.nickname for peer in ordered}
    lines: list[str] = []
    for peer in ordered:
        lines.append(f"{peer.name}({peer.nickname})")
        for link in peer.links:
            name = f"{link.peer}({nicknames.get(link.peer, '')})"
            state = "established" if link.established else "pending"
            lines.append(
                f"   {'->' if link.outbound else '<-'} {link.address:<21} {name:<37} {state}",
            )
    return "".join(f"{line}\n" for line in lines)


def ipam(allocator: Allocator) -> str:
    """`status ipam`: this peer's own part first."""
    own = allocator.setup.name
    total = allocator.ring.universe.size
    sizes: Counter[str] = Counter()
    for entry, part in allocator.ring.parts():
        sizes[entry.peer] += part.size
    lines = []
    for peer in sorted(sizes, key=lambda name: (name != own, name)):
        info = f"({allocator.active()} active)" if peer == own else ""
        if peer != own and not allocator.setup.is_known(peer):
            info = "- unreachable!"
        display = f"{peer}({allocator.nicknames.get(peer, '')})"
        share = f"{sizes[peer] * 100 / total:04.1f}% of total"
        lines.append(f"{display:<37} {sizes[peer]:>8} IPs ({share}) {info}".rstrip())
    return "".join(f"{line}\n" for line in lines)
