"""Computes BIRD's configuration from nodes, pools, blocks and the BGP objects, as confd's templates
do. Pure.

Without a tunnel, the network between the nodes must know where each block of pod addresses is. BGP
tells it: every node announces its own blocks, with itself as the next hop, and learns the other
nodes' blocks. By default all nodes peer with each other (the node-to-node mesh), so a block is
always learned from its owner. The mesh needs a session for every pair of nodes; route reflectors
replace it in larger clusters, because only they pass on routes that they learned by iBGP (RFC
4456). BGPPeer objects add sessions with reflectors, routers and racks.

Only whole blocks are announced, plus single addresses that this node borrowed from another node's
block; a longer prefix wins over the block. The node drops packets to unused addresses of its block
(blackhole), since its default route would send them back to the router and make a loop.

(confd/etc/calico/confd/templates/bird{,_ipam,_aggr}.cfg.template;
confd/pkg/backends/calico/{client,routes}.go.) The file format is that of components/bgp.
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
    """The input of render(), for the IP version of own.

    peers, filters and configuration are objects of Calico's API group. router_id is an IPv4
    address, even on a node that has only IPv6. secrets: (name, key) -> password. services: the
    prefixes of Services that the node announces (services.py).
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
    """The configuration for components/bgp. A BGPPeer that cannot be used is logged and left out.

    Raises Unreadable if the BGPConfiguration is invalid.
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
    """Names the field of the BGPConfiguration in errors.

    Raises Unreadable, so that BIRD keeps its configuration until the object is valid. Calico's
    clients behave the same: they cannot list an object that they cannot decode.
    """
    try:
        yield
    except KeyError as error:
        raise Unreadable(f"BGPConfiguration default: {field}: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise Unreadable(f"BGPConfiguration default: {field}: {error}") from error


def _unique(peers: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One session for each address; a session of the mesh wins over an explicit one."""
    seen = set()
    for peer in peers:
        if peer["address"] not in seen:
            seen.add(peer["address"])
            yield peer


def _mesh(state: State) -> Iterator[dict[str, Any]]:
    """Sessions with all other nodes, unless the mesh is off. Route reflectors are not part of the
    mesh."""
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
    for peer in sorted(state.peers, key=lambda peer: str(peer["metadata"]["name"])):
        try:
            yield from _sessions_of(state, peer)
        except (SelectorError, ValueError, KeyError) as error:
            log.error("BGPPeer %s: %s", peer["metadata"]["name"], error)


def _sessions_of(state: State, peer: KubeObject) -> Iterator[dict[str, Any]]:
    """The sessions of this node that a BGPPeer defines. Both ends follow from it: selected peers
    peer back."""
    spec = peer["spec"]
    own = state.own
    more = _password(state, spec.get("password")) | _restart_time(spec.get("maxRestartTime"))
    more |= _filters(state, spec.get("filters") or [])
    local = _selects(spec, own)
    if address := spec.get("peerIP"):
        host, port = _host_and_port(address)
        if local and own.family.has(host):
            if port != _WELL_KNOWN_PORT:
                raise ValueError(f"peerIP {address}: only port 179 is supported")
            name = f"{'Global' if not spec.get('node') else 'Node'}_{_underlined(host)}"
            session = {
                "name": name,
                "address": host,
                "remoteAS": int(spec["asNumber"]),
                "localAddress": own.ip,
            }
            reflects = own.cluster_id and int(spec["asNumber"]) == state.as_of(own)
            yield session | ({"routeReflectorClient": True} if reflects else {}) | more
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
    """Tests node and nodeSelector. A peer with neither applies to all nodes."""
    if wanted := spec.get("node"):
        return bool(wanted == node.name)
    return matches(spec.get("nodeSelector") or "all()", dict(node.labels))


def _session(state: State, node: Node, name: str) -> dict[str, Any]:
    """A session with another node. The node with the lower address connects."""
    own = state.own
    session = {
        "name": name,
        "address": node.ip,
        "remoteAS": state.as_of(node),
        "localAddress": own.ip,
    }
    if dataplane.is_after(node.ip, own.ip):
        session["passive"] = True
    if (
        own.cluster_id
        and node.cluster_id != own.cluster_id
        and state.as_of(node) == state.as_of(own)
    ):
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
    """Raises ValueError if the Secret does not exist, KeyError if the reference is incomplete: a
    session with a password must not start without it."""
    if not reference:
        return {}
    secret = reference["secretKeyRef"]
    password = state.secrets.get((secret["name"], secret["key"]))
    if password is None:
        raise ValueError(
            f"Secret {NAMESPACE}/{secret['name']} with the key {secret['key']} does not exist",
        )
    return {"password": password}


def _restart_time(text: str | None) -> dict[str, Any]:
    """A metav1.Duration in whole seconds, rounded as confd does. Raises ValueError."""
    return {"restartTime": floor(parse_duration(text) + 0.5)} if text else {}


def _filters(state: State, names: Sequence[str]) -> dict[str, Any]:
    """BGPFilters as import and export rules. Equal matches the prefix itself, In every prefix
    inside it."""
    rules: dict[str, list[dict[str, Any]]] = {"import": [], "export": []}
    for name in names:
        spec = state.filters[name]["spec"]
        for direction, collected in rules.items():
            entries = spec.get(f"{direction}V{state.own.family.version}") or []
            collected += [_filter_rule(name, rule) for rule in entries]
    return {direction: {"rules": collected} for direction, collected in rules.items() if collected}


def _filter_rule(name: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    operator = rule.get("matchOperator", "In")
    cidr = rule["cidr"]
    if operator not in ("Equal", "In"):
        raise ValueError(
            f"BGPFilter {name}: matchOperator {operator} is not supported; use Equal or In",
        )
    length = int(cidr.partition("/")[2])
    within = {"ge": length, "le": block.bits(cidr)} if operator == "In" else {}
    return {"prefix": cidr, "action": rule["action"].lower(), **within}


def _announced(state: State) -> Iterator[dict[str, Any]]:
    """The node's own blocks as whole prefixes, borrowed addresses as single ones, and the Services'
    prefixes."""
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
    """The communities of prefixAdvertisements, given by name or by value."""
    names = {entry["name"]: entry["value"] for entry in configuration.get("communities") or []}
    return [
        names.get(community, community)
        for entry in configuration.get("prefixAdvertisements") or []
        if entry["cidr"] == cidr or block.contains(entry["cidr"], cidr)
        for community in entry.get("communities") or []
    ]


def _kernel(state: State) -> Iterator[dict[str, Any]]:
    """calico_kernel_programming: Felix adds the routes over VXLAN, so BIRD must not; IP-in-IP uses
    tunl0."""
    for pool in sorted(state.pools, key=lambda pool: str(pool["spec"]["cidr"])):
        spec = pool["spec"]
        if not state.own.family.has(spec["cidr"]):
            continue
        rule = {"prefix": spec["cidr"], "le": block.bits(spec["cidr"])}
        if (spec.get("vxlanMode") or "Never") != "Never":
            yield rule | {"action": "reject"}
        elif state.own.family.version == 4 and (mode := spec.get("ipipMode") or "Never") != "Never":
            yield rule | {"tunnel": dataplane.IPIP.device, "crossSubnet": mode == "CrossSubnet"}
