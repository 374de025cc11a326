"""The scene of a case: its lab, its namespace and its saved values; and what names and
${references} mean in it.

A scenario file cannot contain the address of a pod, because it is known only while the case runs.
It uses names and references, which are resolved each time an expectation is checked. So a pod that
is replaced while the case runs is found with its new address.

Names of places, in `from` and `to`:

    worker-1, client, router ...                  a host
    pod:NAME, pod:NS/NAME, pod:NAME(CONTAINER)    a pod
    workers, nodes, pods:LABEL=VALUE              several at once
    service:NAME, an address, a DNS name          only in `to`

References, anywhere in a value:

    ${pod/web.ip}  ${pod/NS/web.node}  ${service/web.nodePort}  ${node/worker-1.podCIDR}
    ${host/client.ip}  ${pod/web.ipv6}  ${node/worker-1.gatewayIPv6}
    ${KIND/NAME.JSONPATH}  ${namespace}  ${domain}  ${from.ip}  ${to.name}  ${SAVED}

`ip` is the address of the primary IP family.
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
#: A reference may contain another one: ${node/${from.name}.gateway}.
REFERENCE = re.compile(r"\$\{((?:[^{}]|\$\{[^{}]+\})+)\}")


class NotYet(Exception):
    """An object does not exist yet, or lacks a value; trying again later may succeed."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM has arrived. Unwinds the whole run, so that its labs end."""


class SceneError(Exception):
    """A name or reference is wrong; trying again does not help."""


IPV4 = "IPv4"
IPV6 = "IPv6"


def of_family(addresses: Iterable[str], family: str) -> str:
    """The first address (or range) of a family, "" if there is none. family "" means any."""
    for address in addresses:
        if not family or (":" in address) == (family == IPV6):
            return address
    return ""


@dataclass(frozen=True)
class End:
    """One end of a connection.

    name: for people. target: for LabHandle; "" if programs cannot run there.
    ip: the address to use. ips: its addresses of both families; a literal name or address has only
    ip.
    """

    name: str
    target: str = ""
    ip: str = ""
    node: str = ""
    ips: tuple[str, ...] = ()

    def values(self) -> Mapping[str, str]:
        """The values of ${from.X} and ${to.X}."""
        return {
            "name": self.name.rpartition("/")[2].rpartition(":")[2],
            "ip": self.ip,
            "ipv4": of_family(self.ips, IPV4),
            "ipv6": of_family(self.ips, IPV6),
            "node": self.node,
        }

    def within(self, family: str) -> End:
        """This end with its address of this family. Raises NotYet if it has none."""
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
    if not status.get("podIP"):
        return []
    return [item["ip"] for item in status.get("podIPs") or ({"ip": status["podIP"]},)]


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
    """The node's podCIDR and its first two addresses. With the name of a family as suffix
    (podCIDRIPv6), those of this family."""
    return {
        ("nodes", f"podCIDR{family}"): lambda node: _pod_cidr(node, family),
        ("nodes", f"network{family}"): _in_pod_cidr(0, family),
        ("nodes", f"gateway{family}"): _in_pod_cidr(1, family),
    }


def _by_family(
    plural: str,
    ips: Callable[[KubeObject], list[str]],
) -> Mapping[tuple[str, str], Callable[..., Any]]:
    """The attributes ipv4 and ipv6 of objects that may have addresses of both families."""
    return {
        (plural, "ipv4"): lambda obj: of_family(ips(obj), IPV4),
        (plural, "ipv6"): lambda obj: of_family(ips(obj), IPV6),
    }


def _first_port(key: str) -> Callable[[KubeObject], Any]:
    return lambda service: next((port.get(key) for port in service["spec"].get("ports", ())), None)


#: (plural, attribute) -> function that reads the value from an object.
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
    """One case while it runs.

    slug: prefix of file names. saved: values that steps have saved, by name.
    deadline: when the time of the case is over (time.monotonic). interrupted: the run shall end.
    """

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
        """The wanted seconds, or less if the case has less time left."""
        return max(0.0, min(wanted, self.deadline - time.monotonic()))

    @property
    def late(self) -> str:
        """A text to add to a failure if the case has no time left, else ""."""
        return "" if self.left(1.0) else " (the time of the case is over; timeouts.case)"

    def pause(self, duration: float) -> None:
        """Waits between two looks. Raises Interrupted if the run shall end, also in a thread, where
        signals are not delivered."""
        if self.interrupted.wait(duration):
            raise Interrupted

    @property
    def hosts(self) -> dict[str, Host]:
        """The hosts by name; they do not change while a lab runs."""
        if not self._hosts:
            self._hosts = {host.name: host for host in self.lab.hosts()}
        return self._hosts

    def qualified(self, name: str) -> tuple[str, str]:
        """The namespace and name in a text: "web" -> (the case's namespace, "web"),
        "kube-system/web" -> ("kube-system", "web")."""
        namespace, _, bare = name.rpartition("/")
        return namespace or self.namespace, bare

    def ends(self, text: str) -> list[End]:
        """The ends that a `from` or `to` means now. Raises NotYet for pods that do not exist or
        have no IP address yet."""
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
        """Like ends(), for places where programs can run. Raises SceneError, NotYet."""
        found = self.ends(text)
        for end in found:
            if not end.target:
                hint = nearest(text, self.hosts)
                hosts = ", ".join(self.hosts)
                raise SceneError(f"cannot run programs on {text!r}{hint}; hosts: {hosts}")
        return found

    def _host_end(self, host: Host) -> End:
        return End(host.name, host.name, host.address, host.name, _host_ips(host))

    def _pod_end(self, text: str) -> End:
        match = POD.fullmatch(text)
        if not match:
            forms = "pod:NAME, pod:NAMESPACE/NAME or pod:NAME(CONTAINER)"
            raise SceneError(f"pod:{text} does not name a pod; write {forms}")
        namespace, name = self.qualified(match["pod"])
        return _end_of(
            self.existing(PODS.plural, name, namespace),
            match["container"] or "",
            self.namespace,
        )

    def _pods_by_label(self, selector: str) -> list[End]:
        pods = self.cluster.list(PODS, self.namespace, selector)
        if not pods:
            raise NotYet(f"no pod in {self.namespace} has the label {selector}")
        running = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        ordered = sorted(running, key=lambda pod: str(pod["metadata"]["name"]))
        return [_end_of(pod, "", self.namespace) for pod in ordered]

    def existing(self, kind: str, name: str, namespace: str = "") -> KubeObject:
        """Reads an object. Raises NotYet if it does not exist, SceneError for an unknown kind."""
        try:
            resource = self.cluster.resource(kind)
        except LookupError as error:
            raise SceneError(str(error)) from error
        where = (namespace or self.namespace) if resource.namespaced else ""
        found = self.cluster.find(resource, name, where)
        if found is None:
            raise NotYet(f'{resource.plural} "{name}" not found')
        return found

    def resolve(self, value: Any, ends: Mapping[str, End] | None = None) -> Any:
        """The value with all ${references} replaced, also inside lists and mappings. Raises NotYet,
        SceneError."""
        if isinstance(value, str):
            return REFERENCE.sub(
                lambda match: self._reference(self.resolve(match[1], ends).strip(), ends or {}),
                value,
            )
        if isinstance(value, Mapping):
            resolved = {}
            for key, item in value.items():
                resolved[self.resolve(key, ends)] = self.resolve(item, ends)
            return resolved
        if isinstance(value, (list, tuple)):
            return [self.resolve(item, ends) for item in value]
        return value

    def _reference(self, text: str, ends: Mapping[str, End]) -> str:
        fixed = {
            "namespace": self.namespace,
            "domain": self.lab.spec.network.clusterDomain,
            **self.saved,
        }
        if text in fixed:
            return fixed[text]
        head, _, attribute = text.partition(".")
        if head in ends:
            values = ends[head].values()
            if attribute not in values:
                known = ", ".join(values)
                raise SceneError(f"${{{text}}}: {head} has no {attribute!r}; it has {known}")
            return values[attribute]
        kind, separator, _ = text.partition("/")
        if not separator:
            raise SceneError(
                f"${{{text}}} is not known{nearest(text, fixed)}; references are "
                f"{', '.join(fixed)} and KIND/NAME.ATTRIBUTE, for example pod/web.ip"
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
                ips = ", ".join(host.ips)
                raise SceneError(f"${{{text}}}: {name} has only the addresses {ips}")
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
        phase = pod.get("status", {}).get("phase", "no status")
        raise NotYet(f"pod {metadata['name']} has no IP yet ({phase})")
    full = f"{metadata['namespace']}/{metadata['name']}"
    target = f"pod:{full}" + (f"/{container}" if container else "")
    shown = metadata["name"] if metadata["namespace"] == home else full
    name = f"pod:{shown}" + (f"({container})" if container else "")
    return End(name, target, ip, pod["spec"].get("nodeName", ""), tuple(_pod_ips(pod)))


def typed(source: End, command: str) -> str:
    """The command line with which a user runs the same command at this place."""
    if not source.target.startswith("pod:"):
        return f"kubewire node {source.target} -- {command}"
    namespace, name, *container = source.target[4:].split("/")
    chosen = f" -c {container[0]}" if container else ""
    return f"kubectl exec -n {namespace} {name}{chosen} -- {command}"


def pairs(
    sources: Sequence[End],
    targets: Sequence[End],
    except_self: bool,
) -> Iterator[tuple[End, End]]:
    """Every source with every target; with except_self, not with itself."""
    for source in sources:
        for target in targets:
            if not (except_self and source.target == target.target):
                yield source, target


__all__ = ["NODES", "ApiError", "End", "NotYet", "Scene", "SceneError", "pairs", "typed"]
