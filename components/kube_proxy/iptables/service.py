"""One Service port -> its rules: who may enter, what is masqueraded, which endpoint is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kubewire.components.kernel.nfnetlink import xtables as xt
from kubewire.components.kernel.nfnetlink.iptables import Append
from kubewire.components.kernel.nfnetlink.xtables import Rule
from kubewire.components.kube_proxy.iptables import chains
from kubewire.components.kube_proxy.state.local_traffic import LocalSource
from kubewire.components.kube_proxy.state.model import Endpoint, ServicePort, ServicePortName
from kubewire.components.kube_proxy.state.objects import in_range
from kubewire.components.kube_proxy.state.topology import Reachable

_MASQUERADE = xt.Jump(chains.MARK_MASQ)
#: Shared, as there may be many thousand rules with them.
_ANY_PORT = {protocol: xt.Transport(protocol) for protocol in ("tcp", "udp", "sctp")}


@dataclass(frozen=True)
class Context:
    """What all Services of a plan share and their rules depend on. local, outside: match what comes
    from this node's pods, and what does not; None when there is no way to tell."""

    node_ip: str
    local: xt.Match | None
    outside: xt.Match | None
    masquerade_all: bool
    comments: bool


def local_match(source: LocalSource, *, negated: bool = False) -> xt.Match | None:
    """Matches packets of this node's pods; None when there is no way to tell them."""
    if source.cidr:
        return xt.Source(source.cidr, negated)
    if source.interface:
        return xt.InInterface(source.interface, negated)
    return (
        xt.InInterface(f"{source.interface_prefix}+", negated) if source.interface_prefix else None
    )


@dataclass(frozen=True, slots=True)
class Block:
    """filter and nat: rules in chains that all Services share; own: rules of its own chains, which
    are in nat."""

    chains: tuple[str, ...]
    filter: tuple[Append, ...]
    nat: tuple[Append, ...]
    own: tuple[Append, ...]

    def shared(self, table: str) -> tuple[Append, ...]:
        return self.filter if table == "filter" else self.nat


@dataclass(frozen=True)
class _Paths:
    """Where each kind of traffic goes; the target is "" when there is nothing to send it to."""

    name: str
    svc: str
    svl: str
    ext: str
    fw: str
    internal: str
    external: str
    has_external: bool
    entry: str


def build(
    name: ServicePortName, service: ServicePort, chosen: Reachable, context: Context
) -> Block:
    paths = _paths(str(name), service, chosen)
    by_text = {str(endpoint): endpoint for endpoint in chosen.reachable}
    endpoint_chains = {
        text: chains.endpoint_chain(paths.name, service.protocol, text) for text in by_text
    }
    own = [*_internal_rules(paths, service, context)]
    names: list[str] = []
    if chosen.anywhere and service.externally_accessible:
        names.append(paths.ext)
        own += _external_rules(paths, service, context)
    if paths.entry == paths.fw:
        names.append(paths.fw)
        own += _firewall_rules(paths, service, context)
    for chain, endpoints in ((paths.svc, chosen.cluster), (paths.svl, chosen.local)):
        if endpoints:
            names.append(chain)
            own += _balancing_rules(chain, paths.name, service, endpoints, endpoint_chains, context)
    of_chains = dict(zip(endpoint_chains.values(), by_text.values(), strict=True))
    own += _endpoint_rules(paths.name, service, of_chains, context)
    return Block(
        chains=(*names, *endpoint_chains.values()),
        filter=tuple(_filter_rules(paths, service, chosen)),
        nat=tuple(_capture_rules(paths, service, chosen)),
        own=tuple(own),
    )


def _paths(name: str, service: ServicePort, chosen: Reachable) -> _Paths:
    hashed = chains.service_digest(name, service.protocol)
    svc, svl, ext, fw = (f"KUBE-{kind}-{hashed}" for kind in ("SVC", "SVL", "EXT", "FW"))
    has_internal = bool(chosen.local) if service.internal_local else chosen.anywhere
    has_external = bool(chosen.local) if service.external_local else chosen.anywhere
    guarded = chosen.anywhere and bool(
        service.load_balancer_ips and service.load_balancer_source_ranges
    )
    return _Paths(
        name=name,
        svc=svc,
        svl=svl,
        ext=ext,
        fw=fw,
        internal=(svl if service.internal_local else svc) if has_internal else "",
        external=svl if service.external_local else svc,
        has_external=has_external,
        entry=fw if guarded else ext,
    )


def _capture_rules(paths: _Paths, service: ServicePort, chosen: Reachable) -> Iterator[Append]:
    """KUBE-SERVICES and KUBE-NODEPORTS: the addresses that lead into the Service."""

    def capture(kind: str, address: str, target: str) -> Append:
        matches = (
            xt.Comment(f"{paths.name} {kind}"),
            xt.Transport(service.protocol, service.port, address),
        )
        return Append(chains.SERVICES, Rule(matches, xt.Jump(target)))

    if paths.internal:
        yield capture("cluster IP", service.cluster_ip, paths.internal)
    if not chosen.anywhere:
        return
    for ip in service.external_ips:
        yield capture("external IP", ip, paths.ext)
    for ip in service.load_balancer_ips:
        yield capture("loadbalancer IP", ip, paths.entry)
    if service.node_port:
        matches = (xt.Comment(paths.name), xt.Transport(service.protocol, service.node_port))
        yield Append(chains.NODEPORTS, Rule(matches, xt.Jump(paths.ext)))


def _filter_rules(paths: _Paths, service: ServicePort, chosen: Reachable) -> Iterator[Append]:
    """Traffic that was not translated because nothing may answer it: REJECT when no endpoint exists
    in the cluster, DROP when only this node has none (traffic policy Local)."""
    why, target = (
        ("has no local endpoints", xt.DROP)
        if chosen.anywhere
        else ("has no endpoints", xt.Reject())
    )

    def rule(chain: str, comment: str, *matches: xt.Match, target: xt.Target) -> Append:
        return Append(chain, Rule((xt.Comment(f"{paths.name} {comment}"), *matches), target))

    def to(ip: str) -> xt.Transport:
        return xt.Transport(service.protocol, service.port, ip)

    if not paths.internal:
        yield rule(chains.SERVICES, why, to(service.cluster_ip), target=target)
    if not paths.has_external:
        for ip in (*service.external_ips, *service.load_balancer_ips):
            yield rule(chains.EXTERNAL_SERVICES, why, to(ip), target=target)
        if service.node_port:
            port = xt.Transport(service.protocol, service.node_port)
            yield rule(chains.EXTERNAL_SERVICES, why, xt.ToThisHost(), port, target=target)
    if paths.entry == paths.fw:
        for ip in service.load_balancer_ips:
            yield rule(
                chains.PROXY_FIREWALL, f"traffic not accepted by {paths.fw}", to(ip), target=xt.DROP
            )
    if service.health_check_node_port:
        port = xt.Transport("tcp", service.health_check_node_port)
        yield rule(chains.NODEPORTS, "health check node port", port, target=xt.ACCEPT)


def _internal_rules(paths: _Paths, service: ServicePort, context: Context) -> Iterator[Append]:
    """Traffic from outside the pods (the node itself, another network routed here) is masqueraded:
    the endpoint's answer must return through this node."""
    outside = None if context.masquerade_all else context.outside
    if not paths.internal or not (context.masquerade_all or outside):
        return
    to = xt.Transport(service.protocol, service.port, service.cluster_ip)
    matches = (xt.Comment(f"{paths.name} cluster IP"), to, *((outside,) if outside else ()))
    yield Append(paths.internal, Rule(matches, _MASQUERADE))


def _external_rules(paths: _Paths, service: ServicePort, context: Context) -> Iterator[Append]:
    """KUBE-EXT-: with policy Cluster all is masqueraded, as it may cross to another node. With
    Local the source stays, but this node and its pods take the Cluster way, as if they had gone out
    and back in."""

    def rule(comment: str, *matches: xt.Match, to: xt.Jump) -> Append:
        words = xt.Comment(f"{comment} traffic for {paths.name} external destinations")
        return Append(paths.ext, Rule((words, *matches), to))

    if not service.external_local:
        yield rule("masquerade", to=_MASQUERADE)
    else:
        if context.local:
            yield rule("pod", context.local, to=xt.Jump(paths.svc))
        yield rule("masquerade LOCAL", xt.FromThisHost(), to=_MASQUERADE)
        yield rule("route LOCAL", xt.FromThisHost(), to=xt.Jump(paths.svc))
    if paths.has_external:
        yield Append(paths.ext, Rule((), xt.Jump(paths.external)))


def _firewall_rules(paths: _Paths, service: ServicePort, context: Context) -> Iterator[Append]:
    comment, ranges = (
        xt.Comment(f"{paths.name} loadbalancer IP"),
        service.load_balancer_source_ranges,
    )
    if context.node_ip and any(in_range(context.node_ip, cidr) for cidr in ranges):
        # A balancer's address is often a local one, and then the source of what this node sends to
        # it.
        ranges = (*ranges, *service.load_balancer_ips)
    for source in ranges:
        yield Append(paths.fw, Rule((comment, xt.Source(source)), xt.Jump(paths.ext)))
    # No target: what reaches the end was not translated and meets KUBE-PROXY-FIREWALL.
    dropped = f"other traffic to {paths.name} will be dropped by {chains.PROXY_FIREWALL}"
    yield Append(paths.fw, Rule((xt.Comment(dropped),)))


def _balancing_rules(
    chain: str,
    name: str,
    service: ServicePort,
    endpoints: Sequence[Endpoint],
    endpoint_chains: dict[str, str],
    context: Context,
) -> Iterator[Append]:
    """First the endpoint this client had before (affinity), then one of n: 1/n, else 1/(n-1), ...
    else the last."""
    ways: list[tuple[tuple[xt.Match, ...], xt.Jump]] = []
    for endpoint in endpoints:
        text = str(endpoint)
        ways.append(
            (
                (xt.Comment(f"{name} -> {text}"),) if context.comments else (),
                xt.Jump(endpoint_chains[text]),
            )
        )
    if seconds := service.sticky_seconds:
        for comment, jump in ways:
            yield Append(chain, Rule((*comment, xt.Recent(jump.to, seconds)), jump))
    for left, (comment, jump) in zip(range(len(ways), 0, -1), ways, strict=True):
        yield Append(chain, Rule((*comment, xt.Random(1 / left)) if left > 1 else comment, jump))


def _endpoint_rules(
    name: str, service: ServicePort, endpoints: Mapping[str, Endpoint], context: Context
) -> Iterator[Append]:
    """endpoints: of each chain."""
    comment = (xt.Comment(name),) if context.comments else ()
    any_port = _ANY_PORT[service.protocol]
    for chain, endpoint in endpoints.items():
        # Hairpin: a pod that reaches itself through the Service must see another source than its
        # own address.
        yield Append(chain, Rule((*comment, xt.Source(endpoint.ip)), _MASQUERADE))
        remember = (xt.Recent(chain),) if service.sticky_seconds else ()
        yield Append(
            chain, Rule((*comment, *remember, any_port), xt.Dnat(endpoint.ip, endpoint.port))
        )
