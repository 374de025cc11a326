"""Names of the cluster zone -> targets, by the Kubernetes DNS specification 1.1.0
(https://github.com/kubernetes/dns/blob/master/docs/specification.md). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.coredns.addresses import address_family
from kubewire.components.coredns.plugins.kubernetes.index import Address, Index, Port, Service

DNS_VERSION = "1.1.0"
PODS_DISABLED = "disabled"
PODS_INSECURE = "insecure"
PODS_VERIFIED = "verified"


@dataclass(frozen=True)
class Options:
    """The properties of the plugin that a lookup depends on. namespaces: empty for all."""

    pods: str = PODS_DISABLED
    namespaces: frozenset[str] = frozenset()
    endpoint_pod_names: bool = False
    ignore_empty_service: bool = False


@dataclass(frozen=True)
class Target:
    """What a name stands for. host: an address, or for ExternalName another name. name: the owner
    name of the target's address, which SRV records point to."""

    host: str
    port: int
    name: str

    @property
    def family(self) -> int:
        """4 or 6; 0 when host is a name."""
        return address_family(self.host)


@dataclass(frozen=True)
class Question:
    """The labels in front of the zone: [endpoint | _port._protocol].service.namespace.svc|pod."""

    kind: str
    namespace: str = ""
    service: str = ""
    endpoint: str = ""
    port: str = ""
    protocol: str = ""


class NoSuchName(Exception):
    """The name does not exist (NXDOMAIN)."""


def parse(name: str, zone: str) -> Question:
    """Parses a name. name and zone are in lower case and have final dots.

    Raises NoSuchName if no name of this form can exist.
    """
    front = name[: -len(zone)].rstrip(".") if zone != "." else name.rstrip(".")
    labels = front.split(".") if front else []
    if not labels:
        return Question("")
    kind, *rest = reversed(labels)
    if kind not in ("svc", "pod"):
        raise NoSuchName(name)
    namespace, service, *more = [*rest, "", ""] if len(rest) < 2 else rest
    more = more if len(rest) > 2 else []
    match more:
        case []:
            return Question(kind, namespace, service)
        case [endpoint]:
            return Question(kind, namespace, service, endpoint=endpoint)
        case [protocol, port]:
            return Question(kind, namespace, service, port=_bare(port), protocol=_bare(protocol))
    raise NoSuchName(name)


def _bare(label: str) -> str:
    return label.removeprefix("_")


def find(index: Index, name: str, zone: str, options: Options) -> list[Target]:
    """The targets of a name; none if it exists without records (NODATA). Raises NoSuchName."""
    question = parse(name, zone)
    if not question.kind or not question.namespace:
        return []
    if not exposed(question.namespace, options) or question.namespace not in index.namespaces:
        raise NoSuchName(name)
    if not question.service:
        if question.kind == "pod" and options.pods == PODS_DISABLED:
            raise NoSuchName(name)
        return []
    if question.kind == "pod":
        return _pod(index, question, name, options)
    return _service(index, question, zone, options)


def exposed(namespace: str, options: Options) -> bool:
    return not options.namespaces or namespace in options.namespaces


def _pod(index: Index, question: Question, name: str, options: Options) -> list[Target]:
    label = question.service
    dashed_ipv4 = label.count("-") == 3 and "--" not in label
    ip = label.replace("-", "." if dashed_ipv4 else ":")
    if options.pods == PODS_DISABLED or question.endpoint or question.port:
        raise NoSuchName(name)
    if not address_family(ip):
        raise NoSuchName(name)
    if options.pods == PODS_VERIFIED and question.namespace not in index.pods_by_ip.get(ip, ()):
        raise NoSuchName(name)
    return [Target(ip, 0, name)]


def _service(index: Index, question: Question, zone: str, options: Options) -> list[Target]:
    key = (question.namespace, question.service)
    service = index.services.get(key)
    base = f"{question.service}.{question.namespace}.svc.{zone}"
    if service is None:
        raise NoSuchName(base)
    if service.external_name:
        targets = _external(question, service, base)
    elif service.headless or question.endpoint:
        targets = _endpoints(index, question, base, options)
    elif options.ignore_empty_service and not any(index.addresses(key)):
        targets = []
    else:
        targets = [
            Target(ip, port.number, base)
            for port in service.ports
            if _matches(question, port)
            for ip in service.cluster_ips
        ]
    if not targets:
        raise NoSuchName(base)
    return targets


def _external(question: Question, service: Service, base: str) -> list[Target]:
    """The alias: it has no endpoints, and it matches every port.

    An externalName that looks like an IP address gets no record: DNS would treat it as a name made
    of digits (https://kubernetes.io/docs/concepts/services-networking/service/#externalname).
    """
    host = service.external_name.rstrip(".")
    return [] if question.endpoint or address_family(host) else [Target(f"{host}.", 0, base)]


def _endpoints(index: Index, question: Question, base: str, options: Options) -> list[Target]:
    out = []
    for address, port in index.addresses((question.namespace, question.service)):
        label = endpoint_label(address, options)
        wanted = not question.endpoint or question.endpoint == label.lower()
        if wanted and _matches(question, port):
            out.append(Target(address.ip, port.number, f"{label}.{base}"))
    return out


def _matches(question: Question, port: Port) -> bool:
    return (not question.port or question.port == port.name.lower()) and (
        not question.protocol or question.protocol == port.protocol
    )


def endpoint_label(address: Address, options: Options) -> str:
    """The hostname, else with endpoint_pod_names the pod's name, else the address with dashes."""
    if address.hostname:
        return address.hostname
    if options.endpoint_pod_names and address.pod_name:
        return address.pod_name
    return address.ip.replace(".", "-").replace(":", "-")


def reverse(index: Index, ip: str, zone: str, options: Options) -> list[str]:
    """The names of an address: that of its Service, else those of the endpoints; perhaps none."""
    key = index.services_by_ip.get(ip)
    if key is not None and exposed(key[0], options):
        return [f"{key[1]}.{key[0]}.svc.{zone}"]
    names = set()
    for namespace, service in index.services_of_endpoint.get(ip, ()):
        if exposed(namespace, options) and (namespace, service) in index.services:
            for subset in index.subsets[namespace, service].values():
                own = [address for address in subset.addresses if address.ip == ip]
                labels = [endpoint_label(address, options) for address in own]
                names |= {f"{label}.{service}.{namespace}.svc.{zone}" for label in labels}
    return sorted(names)


def name_servers(index: Index, local_ips: Sequence[str], zone: str) -> list[tuple[str, str]]:
    """(name, address) of this server in NS records.

    These are the Services that have one of local_ips as an endpoint; without such a Service it is
    ns.dns.ZONE with local_ips.
    """
    servers = {
        (f"{name}.{namespace}.svc.{zone}", ip)
        for local in local_ips
        for namespace, name in index.services_of_endpoint.get(local, ())
        if (namespace, name) in index.services
        for ip in index.services[namespace, name].cluster_ips
        if ip != "None"
    }
    return sorted(servers) or [(f"ns.dns.{zone}", ip) for ip in local_ips]
