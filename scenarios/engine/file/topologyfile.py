"""The key `topology` of a lab file: a shape, hosts that the file describes, or a Mininet Topo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from kubewire.scenarios.engine.file.check import check
from kubewire.scenarios.engine.file.document import Document, KeyPath, SpecError, read_text
from kubewire.topologies import addressing, description, routes
from kubewire.topologies.description import Description, Host, Link, Switch
from kubewire.topologies.plan import TopologyPlan
from kubewire.topologies.ranges import Range
from kubewire.topologies.shapes import SHAPES


@dataclass(frozen=True)
class MininetTopo:
    """A Mininet Topo class in a Python file, as `mn --custom FILE --topo TOPO` takes it."""

    file: str
    topo: str


@dataclass(frozen=True)
class Topology:
    """The hosts and links of a lab: one of the shapes, or hosts and switches that the file
    describes.

    workers does not count the control-plane node. links: the properties of links that have none of
    their own. routing: how routers learn routes; static: they are configured, else a BGP daemon
    runs on each of them. mininet: the hosts and switches are those of a Topo; a lab file that is
    written out again has these instead.
    """

    shape: Literal["one-segment", "two-racks"] = "one-segment"
    workers: int = 3
    links: Link = description.PLAIN
    routing: Literal["static", "bird", "frr", "gobgp"] = "static"
    hosts: tuple[tuple[str, Host], ...] = ()
    switches: tuple[tuple[str, Switch], ...] = ()
    mininet: MininetTopo | None = None

    @property
    def name(self) -> str:
        """The shape, or "free"."""
        return "free" if self.hosts else self.shape

    def description(self, nodes: str) -> Description:
        """nodes: the range of the nodes. Raises PlanError."""
        if self.hosts:
            return Description(self.hosts, self.switches)
        return SHAPES[self.shape](self.workers, nodes)

    def plan(self, nodes: str) -> TopologyPlan:
        """nodes: the range of the nodes. Raises PlanError."""
        static = self.routing == "static"
        return addressing.planned(
            self.description(nodes), nodes, self.name, self.links, static=static
        )

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes, the control plane's first."""
        if self.hosts:
            return [name for name, host in self.hosts if host.is_node]
        return ["control-plane", *(f"worker-{number}" for number in range(1, self.workers + 1))]

    @property
    def requires(self) -> tuple[str, ...]:
        """What the links need of the kernel beyond what every lab does, by doctor's names."""
        links: list[Link] = [self.links, *(switch for _, switch in self.switches)]
        links += [port for _, host in self.hosts for _, port in host.interfaces]
        netem = ("netem",) if any(link.delay or link.loss for link in links) else ()
        return netem + (("tbf",) if any(link.bandwidth is not None for link in links) else ())

    def as_dict(self) -> dict[str, Any]:
        """The mapping of a lab file."""
        common = {"routing": self.routing, "links": self.links.given()}
        if not self.hosts:
            return {"shape": self.shape, "workers": self.workers, **common}
        return {**common, **description.as_dict(Description(self.hosts, self.switches))}


#: A key that describes all hosts -> the keys that then have no meaning.
_INSTEAD_OF = {
    "hosts": ("shape", "workers"),
    "mininet": ("shape", "workers", "hosts", "switches"),
}
#: A lab's topology if its file says nothing.
DEFAULT = Topology()


def of(data: Mapping[str, Any]) -> Topology:
    described = description.parse(data.get("hosts", {}), data.get("switches", {}))
    own = {
        "hosts": described.hosts,
        "switches": described.switches,
        "links": Link(**data.get("links", {})),
    }
    if "mininet" in data:
        own["mininet"] = MininetTopo(**data["mininet"])
    return Topology(**{**data, **own})


def read(document: Document) -> Mapping[str, Any]:
    """The mapping `topology`, with the hosts and switches of a Mininet Topo in place of its name.
    Raises SpecError."""
    given: Mapping[str, Any] = document.data.get("topology", {})
    for key, others in _INSTEAD_OF.items():
        for other in others:
            if key in given and other in given:
                text = f"topology.{key} describes all hosts; leave {other} out"
                raise SpecError([document.problem(("topology", other), text)])
    if "mininet" not in given:
        return given
    from kubewire.scenarios.engine.file import topofile

    where: KeyPath = ("topology", "mininet", "file")
    named = given["mininet"]
    source = Path(document.where).parent / named["file"]
    try:
        found = topofile.evaluate(read_text(source), str(source), named["topo"])
    except (OSError, ValueError) as error:
        why = f"{source}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise SpecError([document.problem(where, why)]) from error
    whole = {key: value for key, value in given.items() if key != "mininet"} | found
    check(Document.of({"topology": whole}, f"{source}: {named['topo']}"), "lab.schema.json")
    return whole


def problems(topology: Topology, nodes: Sequence[Range]) -> Iterator[tuple[KeyPath, str]]:
    """What cannot be built, with the keys below `topology`. nodes: network.nodeCIDR."""
    if topology.hosts:
        yield from description.problems(Description(topology.hosts, topology.switches))
    elif topology.switches:
        yield ("switches",), "no host is plugged into them; describe topology.hosts, too"
    yield from _routing(topology, nodes)


def _routing(topology: Topology, nodes: Sequence[Range]) -> Iterator[tuple[KeyPath, str]]:
    routing = topology.routing
    speakers = [name for name, host in topology.hosts if host.asn]
    if routing == "static":
        return
    if topology.hosts and not speakers:
        yield ("routing",), f"{routing} runs on routers that have an AS number; give them asn"
    elif topology.name == "one-segment":
        yield (
            ("routing",),
            f"{routing} runs on the routers of two racks; set topology.shape: two-racks",
        )
    if any(network.version == 6 for network in nodes):
        yield ("routing",), f"{routing} is set up for IPv4 nodes here; leave it out for IPv6"


def node_problems(plan: TopologyPlan, ranges: Sequence[Range]) -> Iterator[tuple[KeyPath, str]]:
    """Whether the nodes' addresses are those of nodeCIDR."""
    whole = ",".join(map(str, ranges))
    for node in plan.nodes:
        first = node.interfaces[0]
        where: KeyPath = ("hosts", node.name, "interfaces", first.name)
        for number, address in enumerate(node.addresses[: len(ranges)]):
            if ip_address(address) not in ranges[number]:
                wanted = f"an address of network.nodeCIDR {whole}"
                yield where, f"the first interface of a node has {wanted}, and {address} is none"
        if len(node.addresses) != len(ranges):
            yield (
                where,
                f"needs one address of each range of network.nodeCIDR {whole}, in this order",
            )


def unreachable(topology: Topology, nodes: str) -> Iterator[str]:
    """Which nodes of a described topology no packet reaches from the control plane, or from which
    none comes back.

    Routes that routers learn are not known before. nodes: network.nodeCIDR.
    """
    if not topology.hosts or topology.routing != "static":
        return
    plan = topology.plan(nodes)
    first = plan.nodes[0]
    for node in plan.nodes[1:]:
        for one, other in ((first, node), (node, first)):
            for address in other.addresses:
                if why := routes.problem(plan.machines, one, address):
                    yield f"{one.name} does not reach {other.name} at {address}: {why}"
