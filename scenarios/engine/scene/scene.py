"""Where a case runs: its lab, its namespace, what it has saved, and what names and ${references} mean there.

Names of places ("from", "to"):  worker-1, client, router ... | pod:NAME, pod:NS/NAME, pod:NAME(CONTAINER)
only as "to":                    service:NAME, an address, a DNS name
and for several at once:         workers, nodes, pods:LABEL=VALUE

References:  ${pod/web.ip}  ${pod/NS/web.node}  ${service/web.nodePort}  ${node/worker-1.podCIDR}  ${host/client.ip}
             ${pod/web.ipv6}  ${node/worker-1.gatewayIPv6}  (ip is that of the primary family)
             ${KIND/NAME.JSONPATH}  ${namespace}  ${domain}  ${from.ip}  ${to.name}  ${SAVED}
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

from kubewire.components.kubeapi.jsonpath import JSONPath, as_text
from kubewire.components.kubeapi.resources import NODES, PODS, SERVICES, KubeObject
from kubewire.scenarios.engine.file.check import nearest
from kubewire.scenarios.engine.handle import Host, LabHandle
from kubewire.scenarios.engine.packets.capturing import RunningCapture
from kubewire.scenarios.engine.scene.api import ApiError, Cluster

POD = re.compile(r"(?P<pod>[a-z0-9./-]+)(?:\((?P<container>[a-z0-9-]+)\))?")
#: One reference may stand inside another: ${node/${from.name}.gateway}.
REFERENCE = re.compile(r"\$\{((?:[^{}]|\$\{[^{}]+\})+)\}")


class NotYet(Exception):
    """Something is named that is not there, or has no such value, now: looking again later may help."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM: unwinds everything, so that labs are torn down."""


class SceneError(Exception):
    """Something is named that cannot be; looking again does not help."""


IPV4, IPV6 = "IPv4", "IPv6"


def of_family(addresses: Iterable[str], family: str) -> str:
    """The first address (or range) of a family, "" when there is none; of no family, the first."""
    return next((one for one in addresses if not family or (":" in one) == (family == IPV6)), "")


@dataclass(frozen=True)
class End:
    """One end of a conversation. name: for people; target: for LabHandle, "" when nothing can run there.

    ips: its addresses of both families, ip the one that is meant. A name or address that is given has none but ip.
    """

    name: str
    target: str = ""
    ip: str = ""
    node: str = ""
    ips: tuple[str, ...] = ()

    def values(self) -> Mapping[str, str]:
        """What ${from.X} and ${to.X} know."""
        return {
            "name": self.name.rpartition("/")[2].rpartition(":")[2],
            "ip": self.ip,
            "ipv4": of_family(self.ips, IPV4),
            "ipv6": of_family(self.ips, IPV6),
            "node": self.node,
        }

    def within(self, family: str) -> End:
        """With its address of this family. Raises NotYet when it has none."""
        if not family or not self.ips:
            return self
        ip = of_family(self.ips, family)
        if not ip:
            raise NotYet(f"{self.name} has no {family} address: {', '.join(self.ips)}")
        return replace(self, ip=ip)


def _node_ips(node: KubeObject) -> list[str]:
    addresses = node.get("status", {}).get("addresses", ())
    return [item["address"] for item in addresses if item["type"] == "InternalIP"]


def _pod_ips(pod: KubeObject) -> list[str]:
    status = pod.get("status", {})
    return [item["ip"] for item in status.get("podIPs") or ({"ip": status["podIP"]},)] if status.get("podIP") else []


def _service_ips(service: KubeObject) -> list[str]:
    spec = service["spec"]
    return list(spec.get("clusterIPs") or filter(None, (spec.get("clusterIP"),)))


def _pod_cidr(node: KubeObject, family: str) -> str | None:
    spec = node.get("spec", {})
    ranges: list[str] = spec.get("podCIDRs") or [spec["podCIDR"]] if spec.get("podCIDR") else []
    return of_family(ranges, family) or None


def _in_pod_cidr(number: int, family: str) -> Callable[[KubeObject], str | None]:
    def value(node: KubeObject) -> str | None:
        cidr = _pod_cidr(node, family)
        return str(ip_network(cidr)[number]) if cidr else None

    return value


def _node_shortcuts(family: str) -> Mapping[tuple[str, str], Callable[[KubeObject], Any]]:
    """podCIDR and its first two addresses; with a family's name at the end, those of that family."""
    return {
        ("nodes", f"podCIDR{family}"): lambda node: _pod_cidr(node, family),
        ("nodes", f"network{family}"): _in_pod_cidr(0, family),
        ("nodes", f"gateway{family}"): _in_pod_cidr(1, family),
    }


def _by_family(plural: str, ips: Callable[[KubeObject], list[str]]) -> Mapping[tuple[str, str], Callable[..., Any]]:
    """ipv4 and ipv6 of an object with addresses of both."""
    return {
        (plural, "ipv4"): lambda obj: of_family(ips(obj), IPV4),
        (plural, "ipv6"): lambda obj: of_family(ips(obj), IPV6),
    }


def _first_port(key: str) -> Callable[[KubeObject], Any]:
    return lambda service: next((port.get(key) for port in service["spec"].get("ports", ())), None)


#: (plural, attribute) -> value
SHORTCUTS: Mapping[tuple[str, str], Callable[[KubeObject], Any]] = {
    ("pods", "ip"): lambda pod: pod.get("status", {}).get("podIP"),
    ("pods", "node"): lambda pod: pod["spec"].get("nodeName"),
    ("nodes", "ip"): lambda node: of_family(_node_ips(node), ""),
    **_node_shortcuts(""),
    **_node_shortcuts(IPV4),
    **_node_shortcuts(IPV6),
    **_by_family("nodes", _node_ips),
    **_by_family("pods", _pod_ips),
    **_by_family("services", _service_ips),
    ("services", "ip"): lambda service: service["spec"].get("clusterIP"),
    ("services", "port"): _first_port("port"),
    ("services", "nodePort"): _first_port("nodePort"),
    ("services", "targetPort"): _first_port("targetPort"),
}


@dataclass
class Scene:
    """One case at run time. slug: names files; saved: what steps kept under a name; deadline: when the case's
    time is over (time.monotonic); interrupted: the run is to end."""

    lab: LabHandle
    cluster: Cluster
    namespace: str
    slug: str
    saved: dict[str, str] = field(default_factory=dict)
    captures: dict[str, RunningCapture] = field(default_factory=dict)
    deadline: float = math.inf
    interrupted: threading.Event = field(default_factory=threading.Event)
    _hosts: dict[str, Host] = field(default_factory=dict)

    def left(self, wanted: float) -> float:
        """Of the seconds that something wants, those that the case still has."""
        return max(0.0, min(wanted, self.deadline - time.monotonic()))

    @property
    def late(self) -> str:
        """What is added to a failure when the case has no time left, else ""."""
        return "" if self.left(1.0) else " (the time of the case is over)"

    def pause(self, duration: float) -> None:
        """The time between two looks. Raises Interrupted when the run is to end, also in a thread that no signal
        reaches."""
        if self.interrupted.wait(duration):
            raise Interrupted

    @property
    def hosts(self) -> dict[str, Host]:
        """By name; a lab's hosts do not change."""
        if not self._hosts:
            self._hosts = {host.name: host for host in self.lab.hosts()}
        return self._hosts

    def qualified(self, name: str) -> tuple[str, str]:
        """ "web" -> (the case's namespace, "web"); "kube-system/web" as it says."""
        namespace, _, bare = name.rpartition("/")
        return namespace or self.namespace, bare

    def ends(self, text: str) -> list[End]:
        """What a from or to means now. Raises NotYet for pods that are not there (or have no IP) yet."""
        if text in ("workers", "nodes"):
            return [self._host_end(host) for host in self.hosts.values() if _chosen(host, text)]
        if text in self.hosts:
            return [self._host_end(self.hosts[text])]
        kind, separator, name = text.partition(":")
        if separator and kind == "pod":
            return [self._pod_end(name)]
        if separator and kind == "pods":
            return self._pods_by_label(name)
        if separator and kind in ("service", "svc"):
            namespace, bare = self.qualified(name)
            service = self.existing(SERVICES.plural, bare, namespace)
            ips = tuple(_service_ips(service))
            return [End(f"service:{name}", ip=service["spec"].get("clusterIP", ""), ips=ips)]
        return [End(text, ip=text)]

    def source(self, text: str) -> list[End]:
        """Ends where a program can run. Raises SceneError, NotYet."""
        found = self.ends(text)
        for end in found:
            if not end.target:
                hint = nearest(text, self.hosts)
                raise SceneError(f"{text!r} is no place to look from{hint}; hosts: {', '.join(self.hosts)}")
        return found

    def _host_end(self, host: Host) -> End:
        return End(host.name, host.name, host.address, host.name, _host_ips(host))

    def _pod_end(self, text: str) -> End:
        match = POD.fullmatch(text)
        if not match:
            raise SceneError(f"pod:{text}: write pod:NAME, pod:NAMESPACE/NAME or pod:NAME(CONTAINER)")
        namespace, name = self.qualified(match["pod"])
        return _end_of(self.existing(PODS.plural, name, namespace), match["container"] or "", self.namespace)

    def _pods_by_label(self, selector: str) -> list[End]:
        pods = self.cluster.list(PODS, self.namespace, selector)
        if not pods:
            raise NotYet(f"no pod in {self.namespace} has {selector}")
        ordered = sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
        return [_end_of(pod, "", self.namespace) for pod in ordered if not pod["metadata"].get("deletionTimestamp")]

    def existing(self, kind: str, name: str, namespace: str = "") -> KubeObject:
        """An object. Raises NotYet when it is not there, SceneError for an unknown kind."""
        try:
            resource = self.cluster.resource(kind)
        except LookupError as error:
            raise SceneError(str(error)) from error
        found = self.cluster.find(resource, name, namespace or self.namespace if resource.namespaced else "")
        if found is None:
            raise NotYet(f'{resource.plural} "{name}" not found')
        return found

    def resolve(self, value: Any, ends: Mapping[str, End] | None = None) -> Any:
        """value with all ${references} filled in, also inside lists and mappings. Raises NotYet, SceneError."""
        if isinstance(value, str):
            return REFERENCE.sub(lambda match: self._reference(self.resolve(match[1], ends).strip(), ends or {}), value)
        if isinstance(value, Mapping):
            return {self.resolve(key, ends): self.resolve(item, ends) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.resolve(item, ends) for item in value]
        return value

    def _reference(self, text: str, ends: Mapping[str, End]) -> str:
        fixed = {"namespace": self.namespace, "domain": self.lab.spec.network.clusterDomain, **self.saved}
        if text in fixed:
            return fixed[text]
        head, _, attribute = text.partition(".")
        if head in ends:
            values = ends[head].values()
            if attribute not in values:
                raise SceneError(f"${{{text}}}: {head} has {', '.join(values)}")
            return values[attribute]
        kind, separator, _ = text.partition("/")
        if not separator:
            raise SceneError(
                f"${{{text}}} is not known{nearest(text, fixed)}; known: {', '.join(fixed)}, KIND/NAME.WHAT"
            )
        return self._object_value(text, kind)

    def _object_value(self, text: str, kind: str) -> str:
        name, _, attribute = text[len(kind) + 1 :].partition(".")
        if kind == "host":
            if name not in self.hosts:
                raise SceneError(f"${{{text}}}: no host {name}{nearest(name, self.hosts)}")
            host = End(name, ip=self.hosts[name].address, ips=_host_ips(self.hosts[name]))
            value = host.values().get(attribute, host.ip)
            if not value:
                raise SceneError(f"${{{text}}}: {name} has the addresses {', '.join(host.ips)}")
            return value
        namespace, bare = self.qualified(name)
        found = self.existing(kind, bare, namespace)
        plural = self.cluster.resource(kind).plural
        shortcut = SHORTCUTS.get((plural, attribute))
        values = [shortcut(found)] if shortcut else JSONPath.parse("." + attribute).find(found)
        if not values or values[0] in (None, ""):
            raise NotYet(f"{plural}/{name} has no .{attribute} yet")
        return as_text(values[0])


def _host_ips(host: Host) -> tuple[str, ...]:
    return tuple(filter(None, (host.address, host.secondary)))


def _chosen(host: Host, text: str) -> bool:
    return host.is_node if text == "nodes" else host.role == "worker"


def _end_of(pod: KubeObject, container: str, home: str) -> End:
    metadata = pod["metadata"]
    ip = pod.get("status", {}).get("podIP", "")
    if not ip:
        raise NotYet(f"pod {metadata['name']} has no IP yet ({pod.get('status', {}).get('phase', 'no status')})")
    full = f"{metadata['namespace']}/{metadata['name']}"
    target = f"pod:{full}" + (f"/{container}" if container else "")
    shown = metadata["name"] if metadata["namespace"] == home else full
    name = f"pod:{shown}" + (f"({container})" if container else "")
    return End(name, target, ip, pod["spec"].get("nodeName", ""), tuple(_pod_ips(pod)))


def typed(source: End, command: str) -> str:
    """What a person types to do the same there."""
    if not source.target.startswith("pod:"):
        return f"kubewire node {source.target} -- {command}"
    namespace, name, *container = source.target[4:].split("/")
    chosen = f" -c {container[0]}" if container else ""
    return f"kubectl exec -n {namespace} {name}{chosen} -- {command}"


def pairs(sources: Sequence[End], targets: Sequence[End], except_self: bool) -> Iterator[tuple[End, End]]:
    """Every source with every target."""
    for source in sources:
        for target in targets:
            if not (except_self and source.target == target.target):
                yield source, target


__all__ = ["NODES", "ApiError", "End", "NotYet", "Scene", "SceneError", "pairs", "typed"]
