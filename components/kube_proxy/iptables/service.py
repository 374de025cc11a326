"""One Service port -> its rules: who may enter, what is masqueraded, which endpoint is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.kube_proxy.iptables import chains
from kubewire.components.kube_proxy.state.local_traffic import LocalSource
from kubewire.components.kube_proxy.state.model import Endpoint, ServicePort, ServicePortName
from kubewire.components.kube_proxy.state.objects import in_range
from kubewire.components.kube_proxy.state.topology import Reachable


@dataclass(frozen=True)
class Context:
    """What all Services of a plan share and their rules depend on. local_source: iptables arguments that match
    packets of this node's pods, "" when there is no way to tell them."""

    node_ip: str
    local_source: str
    masquerade_all: bool
    comments: bool


def local_match(source: LocalSource) -> str:
    if source.cidr:
        return f"-s {source.cidr}"
    if source.interface:
        return f"-i {source.interface}"
    return f"-i {source.interface_prefix}+" if source.interface_prefix else ""


@dataclass(frozen=True)
class Block:
    """filter_lines and shared_lines go to chains that all Services share; own_lines fill chains (nat)."""

    chains: tuple[str, ...]
    filter_lines: tuple[str, ...]
    shared_lines: tuple[str, ...]
    own_lines: tuple[str, ...]


@dataclass(frozen=True)
class _Paths:
    """Where each kind of traffic goes; the target is "" when there is nothing to send it to."""

    name: str
    match: str
    svc: str
    svl: str
    ext: str
    fw: str
    internal: str
    external: str
    has_external: bool
    entry: str


def build(name: ServicePortName, service: ServicePort, chosen: Reachable, context: Context) -> Block:
    paths = _paths(str(name), service, chosen)
    endpoint_chains = {str(ep): chains.endpoint_chain(paths.name, service.protocol, str(ep)) for ep in chosen.reachable}
    own: list[str] = _internal_rules(paths, service, context)
    names: list[str] = []
    if chosen.anywhere and service.externally_accessible:
        names.append(paths.ext)
        own += _external_rules(paths, service, context)
    if paths.entry == paths.fw:
        names.append(paths.fw)
        own += _firewall_rules(paths, service, context)
    if chosen.cluster and service.uses_cluster_endpoints:
        names.append(paths.svc)
        own += _balancing_rules(paths.svc, paths.name, service, chosen.cluster, endpoint_chains, context)
    if chosen.local:
        names.append(paths.svl)
        own += _balancing_rules(paths.svl, paths.name, service, chosen.local, endpoint_chains, context)
    for endpoint in chosen.reachable:
        own += _endpoint_rules(endpoint_chains[str(endpoint)], paths.name, service, endpoint, context)
    return Block(
        chains=(*names, *endpoint_chains.values()),
        filter_lines=tuple(_filter_rules(paths, service, chosen)),
        shared_lines=tuple(_capture_rules(paths, service, chosen)),
        own_lines=tuple(own),
    )


def _paths(name: str, service: ServicePort, chosen: Reachable) -> _Paths:
    hashed = chains.service_digest(name, service.protocol)
    svc, svl, ext, fw = (f"KUBE-{kind}-{hashed}" for kind in ("SVC", "SVL", "EXT", "FW"))
    has_internal = bool(chosen.local) if service.internal_local else chosen.anywhere
    has_external = bool(chosen.local) if service.external_local else chosen.anywhere
    guarded = chosen.anywhere and bool(service.load_balancer_ips and service.load_balancer_source_ranges)
    return _Paths(
        name=name,
        match=f"-m {service.protocol} -p {service.protocol}",
        svc=svc,
        svl=svl,
        ext=ext,
        fw=fw,
        internal=(svl if service.internal_local else svc) if has_internal else "",
        external=svl if service.external_local else svc,
        has_external=has_external,
        entry=fw if guarded else ext,
    )


def _capture_rules(paths: _Paths, service: ServicePort, chosen: Reachable) -> list[str]:
    """KUBE-SERVICES and KUBE-NODEPORTS: the addresses that lead into the Service."""

    def capture(kind: str, address: str, target: str) -> str:
        return (
            f'-A {chains.SERVICES} -m comment --comment "{paths.name} {kind}" {paths.match} '
            f"-d {address} --dport {service.port} -j {target}"
        )

    out = [capture("cluster IP", service.cluster_ip, paths.internal)] if paths.internal else []
    if not chosen.anywhere:
        return out
    out += [capture("external IP", ip, paths.ext) for ip in service.external_ips]
    out += [capture("loadbalancer IP", ip, paths.entry) for ip in service.load_balancer_ips]
    if service.node_port:
        out.append(
            f"-A {chains.NODEPORTS} -m comment --comment {paths.name} {paths.match} "
            f"--dport {service.node_port} -j {paths.ext}"
        )
    return out


def _filter_rules(paths: _Paths, service: ServicePort, chosen: Reachable) -> list[str]:
    """Traffic that was not translated because nothing may answer it: REJECT when no endpoint exists in the
    cluster, DROP when only this node has none (traffic policy Local)."""
    why, target = ("has no local endpoints", "DROP") if chosen.anywhere else ("has no endpoints", "REJECT")

    def refuse(chain: str, destination: str) -> str:
        return f'-A {chain} -m comment --comment "{paths.name} {why}" {destination} -j {target}'

    to_port = f"--dport {service.port}"
    out = []
    if not paths.internal:
        out.append(refuse(chains.SERVICES, f"{paths.match} -d {service.cluster_ip} {to_port}"))
    if not paths.has_external:
        vips = (*service.external_ips, *service.load_balancer_ips)
        out += [refuse(chains.EXTERNAL_SERVICES, f"{paths.match} -d {ip} {to_port}") for ip in vips]
        if service.node_port:
            local = f"-m addrtype --dst-type LOCAL {paths.match} --dport {service.node_port}"
            out.append(refuse(chains.EXTERNAL_SERVICES, local))
    if paths.entry == paths.fw:
        out += [
            f'-A {chains.PROXY_FIREWALL} -m comment --comment "{paths.name} traffic not accepted by {paths.fw}" '
            f"{paths.match} -d {ip} {to_port} -j DROP"
            for ip in service.load_balancer_ips
        ]
    if service.health_check_node_port:
        out.append(
            f'-A {chains.NODEPORTS} -m comment --comment "{paths.name} health check node port" '
            f"-m tcp -p tcp --dport {service.health_check_node_port} -j ACCEPT"
        )
    return out


def _internal_rules(paths: _Paths, service: ServicePort, context: Context) -> list[str]:
    """Who comes from outside the pods (the node itself, another network routed here) is masqueraded: the
    endpoint's answer must return through this node."""
    if not paths.internal or not (context.masquerade_all or context.local_source):
        return []
    outside = "" if context.masquerade_all else f"! {context.local_source} "
    return [
        f'-A {paths.internal} -m comment --comment "{paths.name} cluster IP" {paths.match} '
        f"-d {service.cluster_ip} --dport {service.port} {outside}-j {chains.MARK_MASQ}"
    ]


def _external_rules(paths: _Paths, service: ServicePort, context: Context) -> list[str]:
    """KUBE-EXT-: with policy Cluster all is masqueraded, as it may cross to another node. With Local the
    source stays, but this node and its pods take the Cluster way, as if they had gone out and back in."""

    def rule(comment: str, match: str, target: str) -> str:
        text = f"{comment} traffic for {paths.name} external destinations"
        return f'-A {paths.ext} -m comment --comment "{text}" {match}-j {target}'

    if not service.external_local:
        out = [rule("masquerade", "", chains.MARK_MASQ)]
    else:
        from_node = "-m addrtype --src-type LOCAL "
        out = [rule("pod", f"{context.local_source} ", paths.svc)] if context.local_source else []
        out += [rule("masquerade LOCAL", from_node, chains.MARK_MASQ), rule("route LOCAL", from_node, paths.svc)]
    return out + ([f"-A {paths.ext} -j {paths.external}"] if paths.has_external else [])


def _firewall_rules(paths: _Paths, service: ServicePort, context: Context) -> list[str]:
    head = f'-A {paths.fw} -m comment --comment "{paths.name} loadbalancer IP"'
    ranges = service.load_balancer_source_ranges
    out = [f"{head} -s {cidr} -j {paths.ext}" for cidr in ranges]
    if context.node_ip and any(in_range(context.node_ip, cidr) for cidr in ranges):
        # A balancer's address is often a local one, and then the source of what this node sends to it.
        out += [f"{head} -s {ip} -j {paths.ext}" for ip in service.load_balancer_ips]
    # No target: what reaches the end was not translated and meets KUBE-PROXY-FIREWALL.
    dropped = f"other traffic to {paths.name} will be dropped by {chains.PROXY_FIREWALL}"
    return [*out, f'-A {paths.fw} -m comment --comment "{dropped}"']


def _balancing_rules(
    chain: str,
    name: str,
    service: ServicePort,
    endpoints: Sequence[Endpoint],
    endpoint_chains: dict[str, str],
    context: Context,
) -> list[str]:
    """First whom the client had before (affinity), then one of n: 1/n, else 1/(n-1), ... else the last."""
    heads = []
    for endpoint in endpoints:
        text = str(endpoint)
        comment = f' -m comment --comment "{name} -> {text}"' if context.comments else ""
        heads.append((f"-A {chain}{comment}", endpoint_chains[text]))
    sticky = [
        f"{head} -m recent --name {target} --rcheck --seconds {service.sticky_seconds} --reap -j {target}"
        for head, target in heads
        if service.sticky_seconds
    ]
    count = len(heads)
    return sticky + [
        f"{head} -m statistic --mode random --probability {1 / (count - i):.10f} -j {target}"
        if i < count - 1
        else f"{head} -j {target}"
        for i, (head, target) in enumerate(heads)
    ]


def _endpoint_rules(chain: str, name: str, service: ServicePort, endpoint: Endpoint, context: Context) -> list[str]:
    comment = f" -m comment --comment {name}" if context.comments else ""
    recent = f" -m recent --name {chain} --set" if service.sticky_seconds else ""
    return [
        # Hairpin: a pod that reaches itself through the Service must see another source than its own address.
        f"-A {chain}{comment} -s {endpoint.ip} -j {chains.MARK_MASQ}",
        f"-A {chain}{comment}{recent} -m {service.protocol} -p {service.protocol} -j DNAT --to-destination {endpoint}",
    ]
