"""What BIRD is told, from nodes, pools, blocks and the BGP objects: confd's templates. Pure.

(confd/etc/calico/confd/templates/bird{,_ipam,_aggr}.cfg.template; confd/pkg/backends/calico/{client,routes}.go.)
The file is that of components/bgp.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import floor
from typing import Any

from kubewire.components.base.golang import parse_duration
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.networks.calico import dataplane
from kubewire.components.networks.calico.dataplane import Node, Unreadable
from kubewire.components.networks.calico.manifests import NAMESPACE
from kubewire.components.networks.calico.plugin import block
from kubewire.components.networks.calico.plugin.selector import SelectorError, matches

log = logging.getLogger("confd")

DEFAULT_AS = 64512
_WELL_KNOWN_PORT = 179


@dataclass(frozen=True)
class State:
    """Everything that matters, for the IP version of own. peers, filters and configuration are objects of Calico's API
    group; router_id is an IPv4 address also where there are no others.

    secrets: (name, key) -> password. services: what the node announces of Services (services.py).
    """

    own: Node
    router_id: str
    nodes: Mapping[str, Node]
    pools: Sequence[KubeObject]
    blocks: Sequence[KubeObject] = ()
    peers: Sequence[KubeObject] = ()
    filters: Mapping[str, KubeObject] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict)
    services: Sequence[str] = ()

    @property
    def default_as(self) -> int:
        return int(self.configuration.get("asNumber") or DEFAULT_AS)

    def as_of(self, node: Node) -> int:
        return node.as_number or self.default_as


def render(state: State) -> dict[str, Any]:
    """components/bgp's configuration. A BGPPeer that cannot be followed is logged and left out.

    Raises Unreadable for a BGPConfiguration.
    """
    own = state.own
    document: dict[str, Any] = {
        "localAS": state.as_of(own),
        "routerID": state.router_id,
        "families": [f"ipv{own.family.version}"],
        "listen": ["0.0.0.0" if own.family.version == 4 else "::"],
        "peers": list(_unique([*_mesh(state), *_peers(state)])),
        "announce": list(_announced(state)),
        "kernel": list(_kernel(state)),
    }
    if own.cluster_id:
        document["clusterID"] = own.cluster_id
    return document


@contextmanager
def reading(field: str) -> Iterator[None]:
    """Of the BGPConfiguration. Raises Unreadable, so that BIRD keeps what it has until the object is right: so do
    Calico's clients, which cannot list an object that they cannot decode."""
    try:
        yield
    except KeyError as error:
        raise Unreadable(f"BGPConfiguration default: {field}: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise Unreadable(f"BGPConfiguration default: {field}: {error}") from error


def _unique(peers: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One session for an address: the mesh's before an explicit one."""
    seen = set()
    for peer in peers:
        if peer["address"] not in seen:
            seen.add(peer["address"])
            yield peer


def _mesh(state: State) -> Iterator[dict[str, Any]]:
    """Every node with every other, unless switched off; route reflectors are no part of it."""
    if not state.configuration.get("nodeToNodeMeshEnabled", True) or state.own.cluster_id:
        return
    with reading("spec.nodeMeshPassword"):
        more = _password(state, state.configuration.get("nodeMeshPassword"))
    with reading("spec.nodeMeshMaxRestartTime"):
        more |= _restart_time(state.configuration.get("nodeMeshMaxRestartTime"))
    for name, node in sorted(state.nodes.items()):
        if name != state.own.name and not node.cluster_id:
            yield _session(state, node, f"Mesh_{_underlined(node.ip)}") | more


def _peers(state: State) -> Iterator[dict[str, Any]]:
    for peer in sorted(state.peers, key=lambda one: str(one["metadata"]["name"])):
        try:
            yield from _of(state, peer)
        except (SelectorError, ValueError, KeyError) as error:
            log.error("BGPPeer %s: %s", peer["metadata"]["name"], error)


def _of(state: State, peer: KubeObject) -> Iterator[dict[str, Any]]:
    """A BGPPeer's sessions of this node, from either end: selected peers peer back."""
    spec = peer["spec"]
    own = state.own
    more = _password(state, spec.get("password")) | _restart_time(spec.get("maxRestartTime"))
    more |= _filters(state, spec.get("filters") or [])
    local = _selects(spec, own)
    if address := spec.get("peerIP"):
        host, port = _host_and_port(address)
        if local and own.family.has(host):
            if port != _WELL_KNOWN_PORT:
                raise ValueError(f"peerIP {address}: only port 179 can be had here")
            name = f"{'Global' if not spec.get('node') else 'Node'}_{_underlined(host)}"
            one = {
                "name": name,
                "address": host,
                "remoteAS": int(spec["asNumber"]),
                "localAddress": own.ip,
            }
            reflects = own.cluster_id and int(spec["asNumber"]) == state.as_of(own)
            yield one | ({"routeReflectorClient": True} if reflects else {}) | more
        return
    for name, node in sorted(state.nodes.items()):
        if name == own.name:
            continue
        remote = matches(spec.get("peerSelector", "all()"), dict(node.labels))
        mirrored = _selects(spec, node) and matches(
            spec.get("peerSelector", "all()"),
            dict(own.labels),
        )
        if (local and remote) or mirrored:
            yield _session(state, node, f"Node_{_underlined(node.ip)}") | more


def _underlined(address: str) -> str:
    return address.replace(".", "_").replace(":", "_")


def _selects(spec: Mapping[str, Any], node: Node) -> bool:
    """node and nodeSelector; none of both: all."""
    if wanted := spec.get("node"):
        return bool(wanted == node.name)
    return matches(spec.get("nodeSelector") or "all()", dict(node.labels))


def _session(state: State, node: Node, name: str) -> dict[str, Any]:
    """With another node: the one with the lower address connects."""
    own = state.own
    session = {
        "name": name,
        "address": node.ip,
        "remoteAS": state.as_of(node),
        "localAddress": own.ip,
    }
    if dataplane.is_after(node.ip, own.ip):
        session["passive"] = True
    if own.cluster_id and node.cluster_id != own.cluster_id and state.as_of(node) == state.as_of(own):
        session["routeReflectorClient"] = True
    return session


def _host_and_port(address: str) -> tuple[str, int]:
    """ "10.0.0.1:179", "[fd00::1]:179", or without a port."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]:")
        return host.rstrip("]"), int(port or _WELL_KNOWN_PORT)
    host, _, port = address.partition(":") if address.count(":") == 1 else (address, "", "")
    return host, int(port or _WELL_KNOWN_PORT)


def _password(state: State, reference: Mapping[str, Any] | None) -> dict[str, Any]:
    """Raises ValueError when the Secret is not there, KeyError without a reference to one: no session without its
    password."""
    if not reference:
        return {}
    secret = reference["secretKeyRef"]
    password = state.secrets.get((secret["name"], secret["key"]))
    if password is None:
        raise ValueError(
            f"Secret {NAMESPACE}/{secret['name']} with the key {secret['key']} is not there",
        )
    return {"password": password}


def _restart_time(text: str | None) -> dict[str, Any]:
    """Whole seconds of a metav1.Duration, rounded as confd rounds them. Raises ValueError."""
    return {"restartTime": floor(parse_duration(text) + 0.5)} if text else {}


def _filters(state: State, names: Sequence[str]) -> dict[str, Any]:
    """BGPFilters as import and export rules; Equal is the prefix itself, In whatever lies in it."""
    rules: dict[str, list[dict[str, Any]]] = {"import": [], "export": []}
    for name in names:
        spec = state.filters[name]["spec"]
        for direction, found in rules.items():
            found += [_filter_rule(name, rule) for rule in spec.get(f"{direction}V{state.own.family.version}") or []]
    return {direction: {"rules": found} for direction, found in rules.items() if found}


def _filter_rule(name: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    operator = rule.get("matchOperator", "In")
    cidr = rule["cidr"]
    if operator not in ("Equal", "In"):
        raise ValueError(
            f"BGPFilter {name}: matchOperator {operator} is not understood; Equal and In are",
        )
    length = int(cidr.partition("/")[2])
    within = {"ge": length, "le": block.bits(cidr)} if operator == "In" else {}
    return {"prefix": cidr, "action": rule["action"].lower(), **within}


def _announced(state: State) -> Iterator[dict[str, Any]]:
    """Own blocks as a whole, borrowed addresses one by one, Services."""
    exported = [pool for pool in state.pools if not pool["spec"].get("disableBGPExport")]
    for cidr, owner in sorted(dataplane.owned(state.blocks)):
        ours = owner == state.own.name and state.own.family.has(cidr)
        if ours and dataplane.pool_of(exported, cidr) is not None:
            yield _announcement(
                state,
                cidr,
                blackhole=dataplane.vxlan_mode(state.pools, cidr) == "Never",
            )
    for cidr in filter(state.own.family.has, state.services):
        yield _announcement(state, cidr, blackhole=False)


def _announcement(state: State, cidr: str, *, blackhole: bool) -> dict[str, Any]:
    announcement: dict[str, Any] = {"prefix": cidr}
    if blackhole and not cidr.endswith(f"/{block.bits(cidr)}"):
        announcement["blackhole"] = True
    with reading("spec.prefixAdvertisements"):
        communities = _communities(state.configuration, cidr)
    if communities:
        announcement["communities"] = communities
    return announcement


def _communities(configuration: Mapping[str, Any], cidr: str) -> list[str]:
    """prefixAdvertisements: by name, or as they are."""
    names = {one["name"]: one["value"] for one in configuration.get("communities") or []}
    return [
        names.get(community, community)
        for entry in configuration.get("prefixAdvertisements") or []
        if entry["cidr"] == cidr or block.contains(entry["cidr"], cidr)
        for community in entry.get("communities") or []
    ]


def _kernel(state: State) -> Iterator[dict[str, Any]]:
    """calico_kernel_programming: Felix routes what goes by VXLAN; IP-in-IP goes through tunl0."""
    for pool in sorted(state.pools, key=lambda one: str(one["spec"]["cidr"])):
        spec = pool["spec"]
        if not state.own.family.has(spec["cidr"]):
            continue
        rule = {"prefix": spec["cidr"], "le": block.bits(spec["cidr"])}
        if (spec.get("vxlanMode") or "Never") != "Never":
            yield rule | {"action": "reject"}
        elif state.own.family.version == 4 and (mode := spec.get("ipipMode") or "Never") != "Never":
            yield rule | {"tunnel": dataplane.IPIP.device, "crossSubnet": mode == "CrossSubnet"}
