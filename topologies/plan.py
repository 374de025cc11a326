"""The machines of a topology with their addresses and routes: pure data, before anything is built.

A lab's nodes are ordinary machines on an ordinary network, which knows nothing of pods. That is
what CNI plugins are made for, and what makes their differences visible: on one segment a node can
be the next hop of another (host-gw), across racks a router in between would have to know the pods'
ranges, or packets must be tunnelled.

A plan is made of a Description (description.py) by addressing.py and routes.py. The shapes that a
lab file can name (shapes.py) are descriptions, too.

A node range is one CIDR, or an IPv4 and an IPv6 one separated by a comma; then every host has an
address of each family, in that order.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from kubewire.topologies.description import PLAIN, Link
from kubewire.topologies.ranges import Range

#: Directories that differ between two real nodes, and therefore must not be shared by two Mininet
#: hosts. network.build() adds the directories of the pod networks.
PRIVATE_DIRECTORIES = (
    "/run",
    "/tmp",
    "/etc/cni",
    "/etc/kubernetes",
    "/opt/cni",
    "/var/lib/cni",
    "/var/lib/etcd",
    "/var/lib/kube-proxy",
    "/var/lib/kubelet",
    "/var/local-path-provisioner",
    "/var/log/pods",
    "/var/log/containers",
)


class PlanError(ValueError):
    """The address range is too small for the topology; the text says which range, and what would be
    enough."""


@dataclass(frozen=True)
class Interface:
    """name: as seen inside the host. addresses: with prefix lengths, the primary family's first.

    It is plugged into port of switch, or a cable joins it to peer, which is HOST:INTERFACE; what it
    has not is "". link: the properties of that link.
    """

    name: str
    addresses: tuple[str, ...]
    switch: str = ""
    port: str = ""
    peer: str = ""
    link: Link = PLAIN

    @property
    def address(self) -> str:
        """Its address of the primary family, with its prefix length."""
        return self.addresses[0]


@dataclass(frozen=True)
class Machine:
    """One Mininet host. role is "control-plane", "worker", "router" or "outside".

    routes are (destination CIDR or "default", gateway address or own interface). zone is the
    topology.kubernetes.io/zone of a node. asn is the AS number of a router, 0 if it speaks no BGP.
    """

    name: str
    role: str
    interfaces: tuple[Interface, ...]
    routes: tuple[tuple[str, str], ...] = ()
    zone: str = ""
    asn: int = 0

    @property
    def address(self) -> str:
        """The first interface's address without its prefix length."""
        return bare(self.interfaces[0].address)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The first interface's addresses, one of each family, without prefix lengths."""
        return tuple(bare(address) for address in self.interfaces[0].addresses)

    @property
    def is_node(self) -> bool:
        return self.role in ("control-plane", "worker")


@dataclass(frozen=True)
class Trunk:
    """A link between two switches. ports: the names of its ports at the first and the second."""

    first: str
    second: str
    ports: tuple[str, str]
    link: Link = PLAIN


@dataclass(frozen=True)
class TopologyPlan:
    """The machines and switches of a topology. name: that of its shape, or "free".

    The control plane is the first machine, and the workers follow. spanning_tree: whether the
    trunks form a loop, in which frames would circle for ever without IEEE 802.1D's spanning tree.
    """

    name: str
    machines: tuple[Machine, ...]
    switches: tuple[str, ...]
    trunks: tuple[Trunk, ...] = ()
    spanning_tree: bool = False

    def machine(self, name: str) -> Machine:
        """Raises KeyError with the names that exist."""
        found = self.find(name)
        if found is None:
            raise KeyError(
                f"no host {name!r}; there are {', '.join(m.name for m in self.machines)}"
            )
        return found

    def find(self, name: str) -> Machine | None:
        return next((machine for machine in self.machines if machine.name == name), None)

    @property
    def nodes(self) -> tuple[Machine, ...]:
        return tuple(machine for machine in self.machines if machine.is_node)


def ranges(text: str) -> tuple[Range, ...]:
    """Parses one CIDR, or two separated by a comma. Raises ValueError."""
    return tuple(ipaddress.ip_network(part) for part in text.split(","))


def bracketed(address: str) -> str:
    """The address as a URL's host (RFC 3986 section 3.2.2)."""
    return f"[{address}]" if ":" in address else address


def bare(address: str) -> str:
    """An address without its prefix length."""
    return address.partition("/")[0]
