"""One Service port -> its chains, sets and elements: who may enter, what is masqueraded, which
endpoint is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kubewire.components.kube_proxy.nftables import chains
from kubewire.components.kube_proxy.nftables.expressions import (
    Dnat,
    DnatRandom,
    Drop,
    FromThisNode,
    Goto,
    GotoRandom,
    InSet,
    LocalPod,
    Mark,
    Remember,
    Source,
    Verdict,
)
from kubewire.components.kube_proxy.nftables.statements import AddAffinitySet, Element, Rule
from kubewire.components.kube_proxy.state.local_traffic import LocalSource
from kubewire.components.kube_proxy.state.model import Endpoint, ServicePort, ServicePortName
from kubewire.components.kube_proxy.state.objects import in_range
from kubewire.components.kube_proxy.state.topology import Reachable

_REJECT = Goto(chains.REJECT)


@dataclass(frozen=True)
class Context:
    """What all Services of a plan share and their rules depend on."""

    node_name: str
    node_ip: str
    local_source: LocalSource
    mark: int


@dataclass(frozen=True, slots=True)
class Block:
    """What is there for one Service port alone (chains, affinity sets), and what it needs of shared
    containers."""

    chains: Mapping[str, tuple[Rule, ...]]
    sets: tuple[AddAffinitySet, ...]
    elements: tuple[Element, ...]


@dataclass(frozen=True)
class _Paths:
    """Where each kind of traffic goes; internal is "" when there is nothing to send it to."""

    name: str
    service: str
    local: str
    external: str
    firewall: str
    internal: str
    outside: str
    has_external: bool
    guarded: bool


def build(
    name: ServicePortName, service: ServicePort, chosen: Reachable, context: Context
) -> Block:
    paths = _paths(name, service, chosen)
    own: dict[str, tuple[Rule, ...]] = {}
    sets: tuple[AddAffinitySet, ...] = ()
    if paths.guarded:
        own[paths.firewall] = (_firewall_rule(service, context),)
    if chosen.anywhere and service.externally_accessible:
        own[paths.external] = tuple(_external_rules(paths, service, context))
    bases = _endpoint_bases(name, service, chosen) if service.sticky_seconds else {}
    for chain, endpoints in ((paths.service, chosen.cluster), (paths.local, chosen.local)):
        if endpoints:
            own[chain] = tuple(_balancing_rules(service, endpoints, bases))
    for endpoint, base in bases.items():
        translate = Dnat(service.protocol, endpoint.ip, endpoint.port)
        own[f"endpoint-{base}"] = (Rule((Remember(f"affinity-{base}"),)), Rule((translate,)))
        sets = (*sets, AddAffinitySet(f"affinity-{base}", service.sticky_seconds))
    return Block(own, sets, tuple(_elements(paths, service, chosen, context)))


def _paths(name: ServicePortName, service: ServicePort, chosen: Reachable) -> _Paths:
    base = chains.service_base(name.namespace, name.name, service.protocol, name.port)
    cluster, local = f"service-{base}", f"local-{base}"
    has_internal = bool(chosen.local) if service.internal_local else chosen.anywhere
    return _Paths(
        name=str(name),
        service=cluster,
        local=local,
        external=f"external-{base}",
        firewall=f"firewall-{base}",
        internal=(local if service.internal_local else cluster) if has_internal else "",
        outside=local if service.external_local else cluster,
        has_external=bool(chosen.local) if service.external_local else chosen.anywhere,
        guarded=bool(service.load_balancer_ips and service.load_balancer_source_ranges),
    )


def _endpoint_bases(
    name: ServicePortName, service: ServicePort, chosen: Reachable
) -> dict[Endpoint, str]:
    text = f"{name.namespace}/{name.name}/{service.protocol}/{name.port}"
    return {
        endpoint: chains.endpoint_base(text, endpoint.ip, endpoint.port)
        for endpoint in chosen.reachable
    }


def _elements(
    paths: _Paths, service: ServicePort, chosen: Reachable, context: Context
) -> Iterator[Element]:
    """The addresses that lead into the Service, those that lead nowhere, and its endpoints on this
    node."""
    protocol, port = service.protocol, str(service.port)
    # No endpoint in the cluster: reject. None on this node, and policy Local: drop.
    refusal: Verdict = Drop() if chosen.anywhere else _REJECT
    yield Element(chains.CLUSTER_IPS, (service.cluster_ip,))
    key = (service.cluster_ip, protocol, port)
    if paths.internal:
        yield Element(chains.SERVICE_IPS, key, Goto(paths.internal))
    else:
        yield Element(chains.NO_ENDPOINT_SERVICES, key, refusal, paths.name)
    for ip in dict.fromkeys((*service.external_ips, *service.load_balancer_ips)):
        if chosen.anywhere:
            yield Element(chains.SERVICE_IPS, (ip, protocol, port), Goto(paths.external))
        if not paths.has_external:
            yield Element(chains.NO_ENDPOINT_SERVICES, (ip, protocol, port), refusal, paths.name)
    if paths.guarded:
        for ip in service.load_balancer_ips:
            yield Element(chains.FIREWALL_IPS, (ip, protocol, port), Goto(paths.firewall))
    if service.node_port:
        if chosen.anywhere:
            yield Element(
                chains.SERVICE_NODEPORTS, (protocol, str(service.node_port)), Goto(paths.external)
            )
        if not paths.has_external:
            yield Element(
                chains.NO_ENDPOINT_NODEPORTS,
                (protocol, str(service.node_port)),
                refusal,
                paths.name,
            )
    for endpoint in chosen.reachable:
        if endpoint.node_name and endpoint.node_name == context.node_name:
            yield Element(
                chains.HAIRPIN_CONNECTIONS, (endpoint.ip, endpoint.ip, protocol, str(endpoint.port))
            )


def _external_rules(paths: _Paths, service: ServicePort, context: Context) -> Iterator[Rule]:
    """With policy Cluster all is masqueraded, as it may cross to another node. With Local the
    source stays, but this node and its pods take the Cluster way, as if they had gone out and back
    in."""
    if not service.external_local:
        yield Rule((Mark(context.mark),))
    else:
        if context.local_source:
            yield Rule(
                (local_pod(context.local_source), Goto(paths.service)), "short-circuit pod traffic"
            )
        yield Rule((FromThisNode(), Mark(context.mark)), "masquerade local traffic")
        yield Rule((FromThisNode(), Goto(paths.service)), "short-circuit local traffic")
    if paths.has_external:
        yield Rule((Goto(paths.outside),))


def local_pod(source: LocalSource, *, negated: bool = False) -> LocalPod:
    return LocalPod(source.cidr, source.interface, source.interface_prefix, negated)


def _firewall_rule(service: ServicePort, context: Context) -> Rule:
    ranges = service.load_balancer_source_ranges
    if context.node_ip and any(in_range(context.node_ip, cidr) for cidr in ranges):
        # A balancer's address is often a local one, and then the source of what this node sends to
        # it.
        ranges = (*ranges, *service.load_balancer_ips)
    return Rule((Source(ranges, negated=True), Drop()))


def _balancing_rules(
    service: ServicePort, endpoints: Sequence[Endpoint], bases: Mapping[Endpoint, str]
) -> Iterator[Rule]:
    if not bases:
        yield Rule(
            (
                DnatRandom(
                    service.protocol, tuple((endpoint.ip, endpoint.port) for endpoint in endpoints)
                ),
            )
        )
        return
    # First whom the client had before, for any port of its own and any address of the Service.
    for endpoint in endpoints:
        yield Rule((InSet(f"affinity-{bases[endpoint]}"), Goto(f"endpoint-{bases[endpoint]}")))
    yield Rule((GotoRandom(tuple(f"endpoint-{bases[endpoint]}" for endpoint in endpoints)),))
