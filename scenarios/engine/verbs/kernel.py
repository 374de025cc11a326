"""routes, neighbours, fdb, addresses: what the kernel of a host or pod has, by iproute2's JSON output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from kubewire.components.kubeapi.resources import PODS
from kubewire.scenarios.engine.scene.scene import End, NotYet, Scene, typed
from kubewire.scenarios.engine.verbs.arguments import Texts
from kubewire.scenarios.engine.verbs.base import AT_LEAST_ONE, Counted, Look, Observation, first_lines, listed
from kubewire.scenarios.engine.verbs.commands import execute

Row = Mapping[str, Any]


def table(scene: Scene, source: End, argv: Sequence[str]) -> list[Row]:
    """The rows that `ip -j ...` prints. Raises NotYet with its words when it fails."""
    done = execute(scene, source, list(argv))
    if done.returncode:
        raise NotYet(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
    rows: list[Row] = json.loads(done.text or "[]")
    return [row for row in rows if row]


@dataclass(frozen=True)
class _Table(Look):
    """Rows of a kernel table that have the given values."""

    #: field -> key in a row
    KEYS: ClassVar[Mapping[str, str]] = {}
    count: Annotated[Counted, "how many such rows"] = AT_LEAST_ONE

    def look(self, scene: Scene, source: End) -> Observation:
        argv = self.argv()
        rows = table(scene, source, ["ip", "-j", *argv] if argv[0] != "bridge" else ["bridge", "-j", *argv[1:]])
        fitting = [row for row in rows if self._fits(row)]
        wanted = [f"{key} {getattr(self, name)}" for name, key in self.KEYS.items() if getattr(self, name)]
        why = "" if self.count.holds(len(fitting)) else f"expected {self.count}, got {len(fitting)} of {len(rows)}"
        shown = [self.line(row) for row in fitting]
        plain = " ".join(argv) if argv[0] == "bridge" else f"ip {' '.join(argv)}"
        return Observation(
            holds=not why,
            command=typed(source, plain),
            seen=f"{self.title()} with {listed(wanted, 'any')}: " + listed(shown[:3], "none") + _more(shown),
            why=why,
            detail=first_lines("\n".join(self.line(row) for row in rows)),
        )

    def _fits(self, row: Row) -> bool:
        return all(
            not getattr(self, name) or getattr(self, name) in _texts(row.get(key)) for name, key in self.KEYS.items()
        )

    def argv(self) -> list[str]:
        raise NotImplementedError

    def title(self) -> str:
        raise NotImplementedError

    def line(self, row: Row) -> str:
        raise NotImplementedError


def _more(shown: list[str]) -> str:
    return f" and {len(shown) - 3} more" if len(shown) > 3 else ""


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


@dataclass(frozen=True)
class Routes(_Table):
    """Routes, or the route that the kernel takes to an address."""

    to: Annotated[str, "the destination, as `ip route` shows it"] = ""
    lookup: Annotated[str, "an address: asks the kernel for its route (`ip route get`)"] = ""
    source: Annotated[str, "with lookup: the packet's source address"] = ""
    iif: Annotated[str, "with lookup: the interface that the packet comes in at"] = ""
    table: Annotated[str, "the routing table; else main"] = ""
    via: Annotated[str, "the gateway"] = ""
    dev: Annotated[str, "the interface"] = ""
    src: Annotated[str, "the preferred source address"] = ""
    type: Annotated[str, "such as unicast or blackhole"] = ""
    KEYS: ClassVar[Mapping[str, str]] = {
        "to": "dst",
        "via": "gateway",
        "dev": "dev",
        "src": "prefsrc",
        "type": "type",
    }

    def argv(self) -> list[str]:
        if self.lookup:
            origin = ["from", self.source] if self.source else []
            return ["route", "get", self.lookup, *origin, *(["iif", self.iif] if self.iif else [])]
        ipv6 = any(":" in text for text in (self.to, self.via, self.src))
        return [*(["-6"] if ipv6 else []), "route", "show", "table", self.table or "main"]

    def title(self) -> str:
        return f"route to {self.lookup}" if self.lookup else "routes"

    def line(self, row: Row) -> str:
        parts = [row.get("type", ""), row.get("dst", "")]
        for word, key in (("via", "gateway"), ("dev", "dev"), ("src", "prefsrc")):
            if row.get(key):
                parts += [word, row[key]]
        return " ".join([*filter(None, parts), *row.get("flags", ())])


@dataclass(frozen=True)
class Neighbours(_Table):
    """The ARP table and IPv6's neighbour cache."""

    to: Annotated[str, "the neighbour's address"] = ""
    dev: Annotated[str, "the interface"] = ""
    lladdr: Annotated[str, "the neighbour's MAC address"] = ""
    state: Annotated[str, "such as REACHABLE or PERMANENT"] = ""
    KEYS: ClassVar[Mapping[str, str]] = {"to": "dst", "dev": "dev", "lladdr": "lladdr", "state": "state"}

    def argv(self) -> list[str]:
        return ["neigh", "show", *(["dev", self.dev] if self.dev else [])]

    def title(self) -> str:
        return "neighbours"

    def line(self, row: Row) -> str:
        states = " ".join(_texts(row.get("state", [])))
        return f"{row.get('dst')} lladdr {row.get('lladdr', '-')} dev {row.get('dev', self.dev)} {states}"

    def _fits(self, row: Row) -> bool:
        return super()._fits({"dev": self.dev, **row})


@dataclass(frozen=True)
class Fdb(_Table):
    """The forwarding database of bridges and VXLAN devices."""

    dev: Annotated[str, "the bridge's port or the VXLAN device"] = ""
    lladdr: Annotated[str, "the MAC address"] = ""
    dst: Annotated[str, "the VXLAN tunnel endpoint behind which it is: another node's address"] = ""
    KEYS: ClassVar[Mapping[str, str]] = {"dev": "ifname", "lladdr": "mac", "dst": "dst"}

    def argv(self) -> list[str]:
        return ["bridge", "fdb", "show", *(["dev", self.dev] if self.dev else [])]

    def title(self) -> str:
        return "forwarding entries"

    def _fits(self, row: Row) -> bool:
        return super()._fits({"ifname": self.dev, **row})  # asked for one device, `bridge` does not repeat it

    def line(self, row: Row) -> str:
        behind = f" dst {row['dst']}" if "dst" in row else ""
        return f"{row.get('mac')} dev {row.get('ifname', self.dev)}{behind} {row.get('state', '')}".rstrip()


@dataclass(frozen=True)
class Addresses(Look):
    """The interfaces that have an address, on all hosts and in all pods unless from says where."""

    SOURCE: ClassVar = "optional"
    address: Annotated[str, "the address"]
    on: Annotated[Texts | None, "exactly these interfaces, as HOST:INTERFACE or pod:NAME:INTERFACE"] = None
    count: Annotated[Counted | None, "how many interfaces"] = None

    def look(self, scene: Scene, source: End) -> Observation:
        places = [source] if source.target else everywhere(scene)
        found = [f"{place.name}:{name}" for place in places for name in self._interfaces(scene, place)]
        why = ""
        if self.on is not None and sorted(found) != sorted(self.on):
            why = f"expected {listed(sorted(self.on))}, got {listed(sorted(found))}"
        count = self.count or (AT_LEAST_ONE if self.on is None else None)
        if not why and count and not count.holds(len(found)):
            why = f"expected {count} interfaces, got {len(found)}: {listed(found)}"
        return Observation(
            holds=not why,
            command=typed(places[0], f"ip -br address show to {self.address}"),
            seen=f"{self.address} is on {listed(found, 'no interface')}; looked at {_counted(places)}",
            why=why,
            detail="looked at " + listed(place.name for place in places),
        )

    def _interfaces(self, scene: Scene, place: End) -> list[str]:
        try:
            rows = table(scene, place, ["ip", "-j", "address", "show"])
        except NotYet:
            return []  # a pod that is going away has no address any more
        return [
            str(row["ifname"]) for row in rows if any(i.get("local") == self.address for i in row.get("addr_info", ()))
        ]


def _counted(places: Sequence[End]) -> str:
    pods = sum(place.target.startswith("pod:") for place in places)
    return f"{len(places) - pods} hosts and {pods} pods"


def everywhere(scene: Scene) -> list[End]:
    """All hosts and all running pods of the cluster that have a network namespace of their own."""
    ends = [End(host.name, host.name, host.address, host.name) for host in scene.hosts.values()]
    for pod in scene.cluster.list(PODS):
        metadata, status = pod["metadata"], pod.get("status", {})
        if status.get("phase") == "Running" and not pod["spec"].get("hostNetwork"):
            full = f"{metadata['namespace']}/{metadata['name']}"
            shown = metadata["name"] if metadata["namespace"] == scene.namespace else full
            ends.append(End(f"pod:{shown}", f"pod:{full}", status.get("podIP", ""), pod["spec"].get("nodeName", "")))
    return ends


VERBS = {"routes": Routes, "neighbours": Neighbours, "fdb": Fdb, "addresses": Addresses}
