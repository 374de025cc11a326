"""Renders a pod's /etc/resolv.conf from its dnsPolicy and dnsConfig
(https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubewire.components.kubelet import pods

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, PodDNSConfig

MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARACTERS = 2048
#: A ClusterFirst pod tries its search list first for names with fewer than 5 dots, so also for
#: name.namespace.svc and for SRV names such as _port._protocol.name.namespace.svc (resolv.conf(5)).
CLUSTER_OPTIONS = ("ndots:5",)


@dataclass(frozen=True)
class ResolverConfig:
    """The lines of a resolv.conf."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def render(self) -> str:
        """The file's text, in the kubelet's order: search, nameservers, options."""
        lines = [f"search {' '.join(self.searches)}"] if self.searches else []
        lines += [f"nameserver {address}" for address in self.nameservers]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True)
class Resolution:
    """A pod's resolver, and the warnings about exceeded limits (event DNSConfigForming)."""

    config: ResolverConfig
    warnings: tuple[str, ...] = field(default=())


def parse(text: str) -> ResolverConfig:
    """Reads resolv.conf(5): the last search line counts; options of several lines add up."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1:
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = tuple(word.rstrip(".") if word != "." else word for word in words[1:])
        elif words[0] == "options":
            options += words[1:]
    return ResolverConfig(tuple(nameservers), searches, tuple(options))


def pod_resolver(
    pod: Pod,
    node: ResolverConfig,
    cluster_dns: Sequence[str],
    cluster_domain: str,
    host_ips: Sequence[str] = (),
) -> Resolution:
    """The resolver of a pod. node: the node's resolv.conf (the kubelet's resolvConf).

    Default replaces ClusterFirst for a pod on the host network, and without a cluster DNS.
    """
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and pods.host_network(pod):
        policy = "Default"
    warnings: list[str] = []
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet") and not cluster_dns:
        warnings.append(
            "kubelet does not have ClusterDNS IP configured and cannot create Pod using "
            f'"{policy}" policy. Falling back to "Default" policy.'
        )
        policy = "Default"
    base = {
        "None": ResolverConfig,
        "Default": lambda: _default(node, host_ips),
    }.get(policy, lambda: _cluster(pods.namespace(pod), node, cluster_dns, cluster_domain))()
    merged = merge(base, pod["spec"].get("dnsConfig") or {})
    return _limit(merged, warnings)


def _default(node: ResolverConfig, host_ips: Sequence[str]) -> ResolverConfig:
    # As upstream, the pods of a node without nameservers get a loopback address of its family.
    loopback = "::1" if host_ips and ":" in host_ips[0] else "127.0.0.1"
    servers = node.nameservers or (loopback,)
    return ResolverConfig(servers, node.searches, node.options)


def _cluster(
    namespace: str,
    node: ResolverConfig,
    cluster_dns: Sequence[str],
    domain: str,
) -> ResolverConfig:
    own = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain) if domain else ()
    searches = tuple(dict.fromkeys([*own, *node.searches]))
    return ResolverConfig(tuple(cluster_dns), searches, CLUSTER_OPTIONS)


def merge(base: ResolverConfig, config: PodDNSConfig) -> ResolverConfig:
    """Applies dnsConfig: it adds servers and searches without duplicates, and overrides options."""
    servers = dict.fromkeys([*base.nameservers, *(config.get("nameservers") or [])])
    searches = dict.fromkeys([*base.searches, *(config.get("searches") or [])])
    options: dict[str, str] = {}
    for option in base.options:
        name, _, value = option.partition(":")
        options[name] = value
    for entry in config.get("options") or []:
        options[entry["name"]] = entry.get("value") or ""
    rendered = tuple(f"{name}:{value}" if value else name for name, value in options.items())
    return ResolverConfig(tuple(servers), tuple(searches), rendered)


def _limit(config: ResolverConfig, warnings: list[str]) -> Resolution:
    servers = config.nameservers
    searches = config.searches
    if len(servers) > MAX_NAMESERVERS:
        servers = servers[:MAX_NAMESERVERS]
        warnings.append(
            "Nameserver limits were exceeded, some nameservers have been omitted, "
            f"the applied nameserver line is: {' '.join(servers)}"
        )
    kept = searches[:MAX_SEARCHES]
    while len(" ".join(kept)) > MAX_SEARCH_CHARACTERS:
        kept = kept[:-1]
    if kept != searches:
        warnings.append(
            "Search Line limits were exceeded, some search paths have been omitted, "
            f"the applied search line is: {' '.join(kept)}"
        )
    return Resolution(ResolverConfig(servers, kept, config.options), tuple(warnings))
