"""The verbs `routes`, `neighbours`, `fdb` and `addresses`: tables of the kernel of a host or pod,
read from the JSON output of iproute2."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from kubewire.components.kubeapi.resources import PODS
from kubewire.scenarios.engine.scene.scene import End, NotYet, Scene, typed
from kubewire.scenarios.engine.verbs.arguments import Texts
from kubewire.scenarios.engine.verbs.base import (
    AT_LEAST_ONE,
    Counted,
    Look,
    Observation,
    first_lines,
    listed,
)
from kubewire.scenarios.engine.verbs.commands import execute

Row = Mapping[str, Any]


def table(scene: Scene, source: End, argv: Sequence[str]) -> list[Row]:
    """The rows that `ip -j ...` prints. Raises NotYet with its error message if it fails."""
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
    count: Annotated[Counted, "the number of such rows"] = AT_LEAST_ONE

    def look(self, scene: Scene, source: End) -> Observation:
        argv = self.argv()
        rows = table(
            scene,
            source,
            ["ip", "-j", *argv] if argv[0] != "bridge" else ["bridge", "-j", *argv[1:]],
        )
        fitting = [row for row in rows if self._fits(row)]
        wanted = []
        for name, key in self.KEYS.items():
            if value := getattr(self, name):
                wanted.append(f"{key} {value}")
        why = ""
        if not self.count.holds(len(fitting)):
            why = f"expected {self.count}, got {len(fitting)} of {len(rows)}"
        shown = [self.line(row) for row in fitting]
        plain = " ".join(argv) if argv[0] == "bridge" else f"ip {' '.join(argv)}"
        rows_shown = listed(shown[:3], "none") + _more(shown)
        return Observation(
            holds=not why,
            command=typed(source, plain),
            seen=f"{self.title()} with {listed(wanted, 'any')}: {rows_shown}",
            why=why,
            detail=first_lines("\n".join(self.line(row) for row in rows)),
        )

    def _fits(self, row: Row) -> bool:
        for name, key in self.KEYS.items():
            wanted = getattr(self, name)
            if wanted and wanted not in _texts(row.get(key)):
                return False
        return True

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
    lookup: Annotated[str, "an address for which the kernel selects a route (`ip route get`)"] = ""
    source: Annotated[str, "with lookup: source address of the packet"] = ""
    iif: Annotated[str, "with lookup: interface at which the packet arrives"] = ""
    table: Annotated[str, "the routing table (default: main)"] = ""
    via: Annotated[str, "the gateway"] = ""
    dev: Annotated[str, "the interface"] = ""
    src: Annotated[str, "the preferred source address"] = ""
    type: Annotated[str, "the type, such as unicast or blackhole"] = ""
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
    state: Annotated[str, "the state, such as REACHABLE or PERMANENT"] = ""
    KEYS: ClassVar[Mapping[str, str]] = {
        "to": "dst",
        "dev": "dev",
        "lladdr": "lladdr",
        "state": "state",
    }

    def argv(self) -> list[str]:
        return ["neigh", "show", *(["dev", self.dev] if self.dev else [])]

    def title(self) -> str:
        return "neighbours"

    def line(self, row: Row) -> str:
        states = " ".join(_texts(row.get("state", [])))
        dev = row.get("dev", self.dev)
        return f"{row.get('dst')} lladdr {row.get('lladdr', '-')} dev {dev} {states}"

    def _fits(self, row: Row) -> bool:
        return super()._fits({"dev": self.dev, **row})


@dataclass(frozen=True)
class Fdb(_Table):
    """The forwarding database of bridges and VXLAN devices."""

    dev: Annotated[str, "the bridge's port or the VXLAN device"] = ""
    lladdr: Annotated[str, "the MAC address"] = ""
    dst: Annotated[str, "the VXLAN tunnel endpoint for it: the address of another node"] = ""
    KEYS: ClassVar[Mapping[str, str]] = {"dev": "ifname", "lladdr": "mac", "dst": "dst"}

    def argv(self) -> list[str]:
        return ["bridge", "fdb", "show", *(["dev", self.dev] if self.dev else [])]

    def title(self) -> str:
        return "forwarding entries"

    def _fits(self, row: Row) -> bool:
        # With `dev`, the output of `bridge` does not contain the name of the device.
        return super()._fits({"ifname": self.dev, **row})

    def line(self, row: Row) -> str:
        behind = f" dst {row['dst']}" if "dst" in row else ""
        dev = row.get("ifname", self.dev)
        return f"{row.get('mac')} dev {dev}{behind} {row.get('state', '')}".rstrip()


@dataclass(frozen=True)
class Addresses(Look):
    """The interfaces that have an address, on all hosts and in all pods, or at the places in
    `from`."""

    SOURCE: ClassVar = "optional"
    address: Annotated[str, "the address"]
    on: Annotated[
        Texts | None,
        "exactly these interfaces, as HOST:INTERFACE or pod:NAME:INTERFACE",
    ] = None
    count: Annotated[Counted | None, "the number of interfaces"] = None

    def look(self, scene: Scene, source: End) -> Observation:
        places = [source] if source.target else everywhere(scene)
        found = []
        for place in places:
            found += [f"{place.name}:{name}" for name in self._interfaces(scene, place)]
        why = ""
        if self.on is not None and sorted(found) != sorted(self.on):
            why = f"expected {listed(sorted(self.on))}, got {listed(sorted(found))}"
        count = self.count or (AT_LEAST_ONE if self.on is None else None)
        if not why and count and not count.holds(len(found)):
            why = f"expected {count} interfaces, got {len(found)}: {listed(found)}"
        return Observation(
            holds=not why,
            command=typed(places[0], f"ip -br address show to {self.address}"),
            seen=f"{self.address} is on {listed(found, 'no interface')} of {_counted(places)}",
            why=why,
            detail="checked: " + listed(place.name for place in places),
        )

    def _interfaces(self, scene: Scene, place: End) -> list[str]:
        try:
            rows = table(scene, place, ["ip", "-j", "address", "show"])
        except NotYet:
            return []  # a pod that is being deleted has no address any more
        interfaces = []
        for row in rows:
            if any(item.get("local") == self.address for item in row.get("addr_info", ())):
                interfaces.append(str(row["ifname"]))
        return interfaces


def _counted(places: Sequence[End]) -> str:
    pods = sum(place.target.startswith("pod:") for place in places)
    return f"{len(places) - pods} hosts and {pods} pods"


def everywhere(scene: Scene) -> list[End]:
    """All hosts and all running pods of the cluster that have a network namespace of their own."""
    ends = [End(host.name, host.name, host.address, host.name) for host in scene.hosts.values()]
    for pod in scene.cluster.list(PODS):
        metadata = pod["metadata"]
        status = pod.get("status", {})
        if status.get("phase") == "Running" and not pod["spec"].get("hostNetwork"):
            full = f"{metadata['namespace']}/{metadata['name']}"
            shown = metadata["name"] if metadata["namespace"] == scene.namespace else full
            ends.append(
                End(
                    f"pod:{shown}",
                    f"pod:{full}",
                    status.get("podIP", ""),
                    pod["spec"].get("nodeName", ""),
                )
            )
    return ends


VERBS = {"routes": Routes, "neighbours": Neighbours, "fdb": Fdb, "addresses": Addresses}
