"""What a lab file says, checked: LabSpec.

What each key does and which values it takes is told in keys.py, and lab.schema.json is made of that
and of the dataclasses here, in addresses.py and in parts.py. What a schema cannot say (ranges that
overlap, masks that cannot fit) is in contradictions.py. Defaults are those of kubeadm, kube-proxy
and flannel, and of the address table in docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kubewire.components.addon import Choice
from kubewire.components.policy.engine import PolicyEngine
from kubewire.scenarios.engine.file import manifests as manifest_files
from kubewire.scenarios.engine.file import nodefiles, topologyfile
from kubewire.scenarios.engine.file.addresses import Network
from kubewire.scenarios.engine.file.check import check
from kubewire.scenarios.engine.file.contradictions import contradictions
from kubewire.scenarios.engine.file.document import Document, SpecError, read_text
from kubewire.scenarios.engine.file.jsonobject import EMPTY, JsonObject
from kubewire.scenarios.engine.file.manifests import Manifests
from kubewire.scenarios.engine.file.nodefiles import File
from kubewire.scenarios.engine.file.parts import (
    CNI,
    DNS,
    Component,
    Image,
    KubeProxy,
    Policy,
    Share,
)
from kubewire.scenarios.engine.file.topologyfile import Topology
from kubewire.topologies.plan import TopologyPlan
from kubewire.topologies.ranges import overlaps

__all__ = [
    "CNI",
    "DNS",
    "Component",
    "Image",
    "KubeProxy",
    "LabSpec",
    "Network",
    "Policy",
    "Share",
    "SpecError",
    "Topology",
]


@dataclass(frozen=True)
class LabSpec:
    """A whole lab file. Equal specs can share a lab (name does not count). kubernetes: False: only
    hosts and links.

    kubelet: fields of KubeletConfiguration. controllerManager, scheduler: flags, by their names
    without the dashes. hostUsers, as in a Pod's spec: True: without a user namespace of the lab's
    own; None: only where it must be so.
    """

    name: str = field(default="", compare=False)
    kubernetes: bool = True
    topology: Topology = topologyfile.DEFAULT
    network: Network = Network()
    cni: CNI = CNI()
    policy: Policy = Policy()
    kubeProxy: KubeProxy = KubeProxy()
    authorization: str = "Node,RBAC"
    kubelet: JsonObject = EMPTY
    controllerManager: JsonObject = EMPTY
    scheduler: JsonObject = EMPTY
    dns: DNS = DNS()
    images: tuple[tuple[str, Image], ...] = ()
    share: tuple[Share, ...] = ()
    hostUsers: bool | None = None
    manifests: tuple[Manifests, ...] = ()
    files: tuple[tuple[str, File], ...] = ()
    components: tuple[Component, ...] = ()

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes."""
        return self.topology.nodes

    @property
    def workers(self) -> list[str]:
        """The names of the nodes besides the control plane."""
        return self.nodes[1:]

    @property
    def plan(self) -> TopologyPlan:
        """The machines with their addresses. Raises PlanError."""
        return self.topology.plan(self.network.nodeCIDR)

    @property
    def has_host_users(self) -> bool:
        """Whether the lab's root is the machine's root. Some proxy modes need that."""
        return bool(self.kubeProxy.needs_host_users) if self.hostUsers is None else self.hostUsers

    @property
    def policy_engine(self) -> PolicyEngine[Any]:
        """The descriptor of the engine that enforces network policies."""
        return self.policy.engine_of(self.cni.plugin)

    @property
    def policy_choice(self) -> Choice[Any]:
        """The engine's backend and settings."""
        return self.policy.choice(self.cni.plugin)

    @property
    def has_working_dns(self) -> bool:
        """CoreDNS needs a pod network, and kube-proxy to reach the API server's Service."""
        return (
            bool(self.dns.replicas)
            and self.cni.network.connects_pods
            and self.kubeProxy.mode != "none"
        )

    def opened(self) -> Iterator[str]:
        """What the lab file opens of the machine, a sentence each, for the user to see before it
        happens."""
        if self.has_host_users:
            mode = f"kubeProxy.mode: {self.kubeProxy.mode} needs hostUsers: true"
            why = "hostUsers: true" if self.hostUsers else mode
            yield (
                f"{why}: root in this lab is root of this machine; a privileged pod and a node can change "
                "kernel-wide settings and everything on its disks (docs/security.md)"
            )
        for share in self.share:
            if not share.readOnly:
                yield f"share: everything in this lab may change what is in {share.path} of this machine"

    def unreachable(self) -> list[str]:
        """Which nodes of a described topology the control plane does not reach, or do not reach it,
        a sentence each."""
        return [
            f"topology: {text}"
            for text in topologyfile.unreachable(self.topology, self.network.nodeCIDR)
        ]

    def wanted_overlaps(self) -> list[str]:
        """What overlaps because allowOverlap says that it may, a sentence each. Such a lab need not
        work."""
        if not self.network.allowOverlap:
            return []
        return [
            f"network.allowOverlap: {found}; the lab keeps running if it is incomplete"
            for found in overlaps(self.network.named())
        ]

    def of_upstream(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the file sets of upstream's programs, by its keys."""
        for key in ("kubelet", "controllerManager", "scheduler"):
            yield key, getattr(self, key).data
        yield "kubeProxy", self.kubeProxy.configuration.data

    def ineffective(self) -> Iterator[str]:
        """What the lab file says that has no effect here, a sentence each."""
        for key, data in self.of_upstream():
            if data:
                from kubewire.scenarios.engine.file import (
                    upstream,
                )  # the components' configuration takes 30 ms

                yield from upstream.warnings(key, data, self.kubeProxy.mode)
        if self.dns.corefile and not self.dns.replicas:
            yield "dns.corefile has no effect: with replicas: 0 there is no cluster DNS"

    @classmethod
    def load(cls, path: str | Path) -> LabSpec:
        """Read a lab file. Raises SpecError (bad content) and OSError (cannot be read)."""
        return cls.from_document(Document.parse(read_text(Path(path)), str(path)))

    @classmethod
    def of_form(cls, path: str | Path) -> LabSpec:
        """Like load, but what the schema cannot say is not checked: for callers that look for
        such faults themselves."""
        document = Document.parse(read_text(Path(path)), str(path))
        check(document, "lab.schema.json")
        return _build({**document.data, "topology": topologyfile.read(document)})

    @classmethod
    def parse(cls, mapping: Mapping[str, Any], where: str = "lab") -> LabSpec:
        """Plain data as from YAML; where names it in errors. Raises SpecError."""
        return cls.from_document(Document.of(mapping, where))

    @classmethod
    def from_document(cls, document: Document) -> LabSpec:
        """Check against the schema, read the files that it names, build, then check what the schema
        cannot say."""
        check(document, "lab.schema.json")
        spec = _build(_with_files(document))
        problems = [document.problem(path, what) for path, what in contradictions(spec)]
        if problems:
            raise SpecError(problems)
        return spec

    def as_dict(self) -> dict[str, Any]:
        """The lab file again, all defaults written out: LabSpec.parse(spec.as_dict()) == spec."""
        plain = asdict(self)
        plain["cni"] = self.cni.as_dict()
        plain["policy"] = self.policy.as_dict(self.cni.plugin)
        plain["kubeProxy"] = {"mode": self.kubeProxy.mode, **self.kubeProxy.configuration.data}
        plain |= {key: data for key, data in self.of_upstream() if key != "kubeProxy"}
        if not self.dns.corefile:
            del plain["dns"]["corefile"]
        plain["images"] = {name: image.as_dict() for name, image in self.images}
        plain["share"] = [asdict(share) for share in self.share]
        plain["components"] = [one.as_dict() for one in self.components]
        plain["files"] = nodefiles.as_dict(self.files)
        plain["manifests"] = [one.as_dict() for one in self.manifests]
        if self.hostUsers is None:
            del plain["hostUsers"]
        plain["topology"] = self.topology.as_dict()
        plain["network"] = {
            key: value for key, value in plain["network"].items() if value is not None
        }
        if not self.name:
            del plain["name"]
        return plain

    def label(self) -> str:
        """For people: "flannel/vxlan · kube-proxy iptables · 3 workers"."""
        if not self.kubernetes:
            hosts = len(self.nodes)
            return f"no Kubernetes · {hosts} hosts" + (
                "" if self.topology.name == "one-segment" else f" · {self.topology.name}"
            )
        cni = (
            f"{self.cni.plugin}/{self.cni.backend}" if self.cni.network.connects_pods else "no CNI"
        )
        routing = "" if self.topology.routing == "static" else f" with {self.topology.routing}"
        shape = "" if self.topology.name == "one-segment" else f" · {self.topology.name}{routing}"
        number = len(self.workers)
        workers = f"{number} worker{'' if number == 1 else 's'}"
        families = "" if self.network.ip_families == "IPv4" else f" · {self.network.ip_families}"
        policy = f" · policy {self.policy.engine}" if self.policy.engine else ""
        proxy = f"kube-proxy {self.kubeProxy.mode}"
        return f"{cni}{policy} · {proxy} · {workers}{shape}{families}"


def _build(data: Mapping[str, Any]) -> LabSpec:
    cni = CNI.of(data.get("cni", {}))
    return LabSpec(
        name=data.get("name", ""),
        kubernetes=data.get("kubernetes", True),
        topology=topologyfile.of(data.get("topology", {})),
        network=Network.of(data.get("network", {})),
        cni=cni,
        policy=Policy.of(data.get("policy", {}), cni.plugin),
        kubeProxy=KubeProxy.of(data.get("kubeProxy", {})),
        authorization=data.get("authorization", "Node,RBAC"),
        kubelet=JsonObject.of(data.get("kubelet", {})),
        controllerManager=JsonObject.of(data.get("controllerManager", {})),
        scheduler=JsonObject.of(data.get("scheduler", {})),
        dns=DNS(**data.get("dns", {})),
        images=tuple(
            (name, Image.of(image)) for name, image in sorted(data.get("images", {}).items())
        ),
        share=_shares(data),
        hostUsers=data.get("hostUsers"),
        manifests=tuple(
            one
            for n, entry in enumerate(data.get("manifests", ()))
            for one in manifest_files.of(entry, n)
        ),
        components=tuple(Component.of(entry) for entry in data.get("components", ())),
        files=tuple(
            (path, nodefiles.of(entry)) for path, entry in sorted(data.get("files", {}).items())
        ),
    )


def _shares(data: Mapping[str, Any]) -> tuple[Share, ...]:
    """What the file shares, and the programs that take the place of the lab's components."""
    shares = [Share.of(entry) for entry in data.get("share", ())]
    given = {share.path for share in shares}
    programs = {entry["program"] for entry in data.get("components", ()) if entry.get("program")}
    outside = sorted(path for path in programs - given if not path.startswith("/usr/"))
    return (*shares, *map(Share, outside))


def _with_files(document: Document) -> Mapping[str, Any]:
    """The document's data with the contents of the files that it names, which a lab does not
    see."""
    return {
        **document.data,
        "topology": topologyfile.read(document),
        "manifests": manifest_files.read(document),
        "files": nodefiles.read(document),
    }
