"""What a lab file says, checked: LabSpec and its parts.

What each key does and which values it takes is told in keys.py, and lab.schema.json is made of
both. What a schema cannot say (ranges that overlap, masks that cannot fit) is checked here.
Defaults are those of kubeadm, kube-proxy and flannel, and of the address table in
docs/architecture.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal

from kubewire.components.addon import Choice
from kubewire.components.kube_proxy import modes
from kubewire.components.networks import registry
from kubewire.components.networks.podnetwork import PodNetwork
from kubewire.scenarios.engine.file import manifests as manifest_files
from kubewire.scenarios.engine.file import nodefiles, topologyfile
from kubewire.scenarios.engine.file.check import check
from kubewire.scenarios.engine.file.document import Document, KeyPath, SpecError, read_text
from kubewire.scenarios.engine.file.jsonobject import EMPTY, JsonObject
from kubewire.scenarios.engine.file.manifests import Manifests
from kubewire.scenarios.engine.file.nodefiles import File
from kubewire.scenarios.engine.file.topologyfile import Topology
from kubewire.topologies.plan import PlanError, TopologyPlan
from kubewire.topologies.ranges import (
    MASK_SIZES,
    NODES,
    PODS,
    SERVICES,
    PodRange,
    Range,
    ServiceRange,
    overlaps,
    parse_one,
)
from kubewire.topologies.shapes import OUTSIDE, OUTSIDE_IPV6

__all__ = [
    "CNI",
    "DNS",
    "Component",
    "Image",
    "KubeProxy",
    "LabSpec",
    "Network",
    "Share",
    "SpecError",
    "Topology",
]

#: Ranges whose addresses upstream refuses as endpoints (ValidateNonSpecialIP) or no kernel routes;
#: RFC 6890.
_SPECIAL: dict[Range, str] = {
    IPv4Network("0.0.0.0/8"): "this network",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
    IPv6Network("::/96"): "unspecified, loopback and IPv4-compatible",
    IPv6Network("::ffff:0:0/96"): "IPv4-mapped",
    IPv6Network("fe80::/10"): "link-local",
    IPv6Network("ff00::/8"): "multicast",
}
#: How a sentence names the ranges that every lab has outside of its cluster.
_OUTSIDE = "what lies outside the cluster"
_FAMILIES = {4: "IPv4", 6: "IPv6"}
#: The ranges of an ipFamily where a lab file gives none: those of IPv6 are kind's.
_RANGES = {
    "nodeCIDR": {4: "172.18.0.0/16", 6: "fd00:18::/64"},
    "clusterCIDR": {4: "10.244.0.0/16", 6: "fd00:10:244::/56"},
    "serviceCIDR": {4: "10.96.0.0/12", 6: "fd00:10:96::/112"},
}
_VERSIONS = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6), "dual-ipv6-first": (6, 4)}


@dataclass(frozen=True)
class Network:
    """Address ranges, under the names of the lab file (which are Kubernetes' own).

    ipFamily gives the ranges that a lab file leaves out; it is that of clusterCIDR. Each of the
    three is one CIDR, or an IPv4 and an IPv6 one with a comma between them, the primary family's
    first (as --cluster-cidr and --service-cluster-ip-range take them). nodeCIDRMaskSize is for one
    family, the other two are for dual-stack, where it is None; not given in a lab file they are 24
    in IPv4, 64 in IPv6. allowOverlap: ranges may overlap each other and what lies outside the
    cluster, to see what becomes of it.
    """

    ipFamily: Literal["ipv4", "ipv6", "dual", "dual-ipv6-first"] = "ipv4"
    nodeCIDR: str = "172.18.0.0/16"
    clusterCIDR: str = "10.244.0.0/16"
    nodeCIDRMaskSize: int | None = 24
    nodeCIDRMaskSizeIPv4: int | None = None
    nodeCIDRMaskSizeIPv6: int | None = None
    serviceCIDR: str = "10.96.0.0/12"
    serviceNodePortRange: str = "30000-32767"
    clusterDomain: str = "cluster.local"
    allowOverlap: bool = False

    def mask_size(self, version: int) -> int:
        """Of each node's part of the pod range of this IP version."""
        own = self.nodeCIDRMaskSizeIPv4 if version == 4 else self.nodeCIDRMaskSizeIPv6
        return own or self.nodeCIDRMaskSize or MASK_SIZES[version]

    @property
    def requires(self) -> tuple[str, ...]:
        """What the ranges need of the kernel beyond what every lab does, by doctor's names."""
        return ("ipv6",) if ":" in self.nodeCIDR else ()

    def named(self) -> dict[str, tuple[Range, ...]]:
        """The ranges by what they are for, and those outside of the cluster. Raises ValueError."""
        of = {NODES: self.nodeCIDR, PODS: self.clusterCIDR, SERVICES: self.serviceCIDR}
        parsed = {
            name: tuple(parse_one(part) for part in text.split(",")) for name, text in of.items()
        }
        return parsed | {_OUTSIDE: (OUTSIDE, OUTSIDE_IPV6)}

    @property
    def ip_families(self) -> str:
        """ "IPv4", "IPv6", or "IPv4/IPv6" and "IPv6/IPv4" by the order of clusterCIDR."""
        return "/".join(_FAMILIES[parse_one(part).version] for part in self.clusterCIDR.split(","))


@dataclass(frozen=True)
class CNI:
    """The pod network, its backend and its settings, as components/networks/registry.py lists them.

    settings are (key, value) in the registry's order; a value that is a mapping is a tuple of its
    sorted pairs. plugin "none": nothing is installed, nodes stay NotReady until somebody installs a
    network.
    """

    plugin: str = registry.NETWORKS[0].name
    backend: str = registry.NETWORKS[0].addon.backend_names[0]
    settings: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> CNI:
        """What a lab file says, with the defaults of the network that it names. Settings of other
        networks are kept, and validation names them."""
        plugin = data.get("plugin", cls.plugin)
        addon = registry.network(plugin).addon
        defaults = {setting.name: setting.default for setting in addon.settings}
        settings = []
        for setting in registry.settings():
            value = data.get(setting.name, defaults.get(setting.name))
            if setting.is_mapping:
                value = tuple(sorted((value or {}).items()))
            is_own = setting.name in defaults
            if value or (is_own and value is not None):
                settings.append((setting.name, value))
        return cls(plugin, data.get("backend", addon.backend_names[0]), tuple(settings))

    def as_dict(self) -> dict[str, Any]:
        """The lab file's mapping, with all defaults. A setting that is a mapping is written also
        where it is empty."""
        empty: dict[str, Any] = {
            setting.name: {} for setting in registry.settings() if setting.is_mapping
        }
        given = {**empty, **self.given}
        ordered = {
            setting.name: given[setting.name]
            for setting in registry.settings()
            if setting.name in given
        }
        return {"plugin": self.plugin, "backend": self.backend, **ordered}

    @property
    def given(self) -> dict[str, Any]:
        """The settings as a lab file has them."""
        mappings = {setting.name for setting in registry.settings() if setting.is_mapping}
        return {name: dict(value) if name in mappings else value for name, value in self.settings}

    @property
    def network(self) -> PodNetwork[Any]:
        """The descriptor of the network."""
        return registry.network(self.plugin)

    @property
    def choice(self) -> Choice[Any]:
        """What the functions of the descriptor get. Raises KeyError for a backend of another
        network."""
        return self.network.addon.choose(self.backend, self.given)

    @property
    def requires(self) -> tuple[str, ...]:
        """What the backend needs of the kernel beyond what every lab does, by doctor's names."""
        return self.choice.backend.requires


@dataclass(frozen=True)
class KubeProxy:
    """mode "none": no kube-proxy runs. configuration: other fields of KubeProxyConfiguration, as a
    file has them."""

    mode: Literal["iptables", "nftables", "ipvs", "none"] = "iptables"
    configuration: JsonObject = EMPTY

    @property
    def requires(self) -> tuple[str, ...]:
        """What the mode needs of the kernel beyond what every lab does, by doctor's names."""
        mode = modes.find(self.mode)
        return mode.requires if mode else ()

    @property
    def needs_host_users(self) -> str:
        """Why the mode needs the first user namespace, or ""."""
        mode = modes.find(self.mode)
        return mode.needs_host_users if mode else ""


@dataclass(frozen=True)
class DNS:
    """replicas of kube-system/coredns; 0: no cluster DNS. corefile: in place of kubeadm's."""

    replicas: int = 2
    corefile: str = ""


@dataclass(frozen=True)
class Image:
    """A program of the machine under an image name, as the kubelet's catalogue has it
    (components/kubelet/images).

    entrypoint, or argv, which is the same, or main, a Python function; or cmd alone.
    """

    argv: tuple[str, ...] = ()
    main: str = ""
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    programs: tuple[tuple[str, str], ...] = ()
    workingDir: str = ""
    user: int | None = None
    preload: Literal["light", "components"] = "light"
    tools: tuple[tuple[str, str], ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """A file or folder of the machine that the lab sees under the same path. A string in a lab file
    is its path."""

    path: str
    readOnly: bool = True


@dataclass(frozen=True)
class Component:
    """A process of the user's own on the nodes whose names match: command is an argv."""

    name: str
    command: tuple[str, ...]
    nodes: str = "*"
    env: tuple[tuple[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The form of a lab file."""
        return {**asdict(self), "command": list(self.command), "env": dict(self.env)}


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
    kubeProxy: KubeProxy = KubeProxy()
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
        """Like load, but what the schema cannot say is not checked: for who finds that himself."""
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
        problems = [document.problem(path, what) for path, what in _contradictions(spec)]
        if problems:
            raise SpecError(problems)
        return spec

    def as_dict(self) -> dict[str, Any]:
        """The lab file again, all defaults written out: LabSpec.parse(spec.as_dict()) == spec."""
        plain = asdict(self)
        plain["cni"] = self.cni.as_dict()
        plain["kubeProxy"] = {"mode": self.kubeProxy.mode, **self.kubeProxy.configuration.data}
        plain |= {key: data for key, data in self.of_upstream() if key != "kubeProxy"}
        if not self.dns.corefile:
            del plain["dns"]["corefile"]
        plain["images"] = {name: _image_dict(image) for name, image in self.images}
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
        return f"{cni} · kube-proxy {self.kubeProxy.mode} · {workers}{shape}{families}"


def _build(data: Mapping[str, Any]) -> LabSpec:
    return LabSpec(
        name=data.get("name", ""),
        kubernetes=data.get("kubernetes", True),
        topology=topologyfile.of(data.get("topology", {})),
        network=_addresses(data.get("network", {})),
        cni=CNI.of(data.get("cni", {})),
        kubeProxy=_kube_proxy(data.get("kubeProxy", {})),
        kubelet=JsonObject.of(data.get("kubelet", {})),
        controllerManager=JsonObject.of(data.get("controllerManager", {})),
        scheduler=JsonObject.of(data.get("scheduler", {})),
        dns=DNS(**data.get("dns", {})),
        images=tuple(
            (name, _image(image)) for name, image in sorted(data.get("images", {}).items())
        ),
        share=tuple(_share(entry) for entry in data.get("share", ())),
        hostUsers=data.get("hostUsers"),
        manifests=tuple(
            one
            for n, entry in enumerate(data.get("manifests", ()))
            for one in manifest_files.of(entry, n)
        ),
        components=tuple(_component(entry) for entry in data.get("components", ())),
        files=tuple(
            (path, nodefiles.of(entry)) for path, entry in sorted(data.get("files", {}).items())
        ),
    )


def _with_files(document: Document) -> Mapping[str, Any]:
    """The document's data with the contents of the files that it names, which a lab does not
    see."""
    return {
        **document.data,
        "topology": topologyfile.read(document),
        "manifests": manifest_files.read(document),
        "files": nodefiles.read(document),
    }


def _kube_proxy(data: Mapping[str, Any]) -> KubeProxy:
    others = {key: value for key, value in data.items() if key != "mode"}
    return KubeProxy(data.get("mode", KubeProxy.mode), JsonObject.of(others))


def _addresses(data: Mapping[str, Any]) -> Network:
    """With the ranges of ipFamily, and the masks that fit the families of clusterCIDR, where the
    file says none."""
    given = data.get("ipFamily") or _family_of(data.get("clusterCIDR", Network.clusterCIDR))
    ranges = {
        key: ",".join(of[version] for version in _VERSIONS[given]) for key, of in _RANGES.items()
    }
    if "ipFamily" not in data and given != "ipv4":
        ranges = {}  # who writes ranges of another family out writes all of them
    data = {"ipFamily": given, **ranges, **data}
    versions = [
        6 if ":" in part else 4 for part in data.get("clusterCIDR", Network.clusterCIDR).split(",")
    ]
    own = {f"nodeCIDRMaskSize{_FAMILIES[version]}": MASK_SIZES[version] for version in versions}
    if len(versions) > 1:
        return Network(**{"nodeCIDRMaskSize": None, **own, **data})
    one = None if own.keys() & data.keys() else MASK_SIZES[versions[0]]
    return Network(**{"nodeCIDRMaskSize": one, **data})


def _family_of(cluster: str) -> str:
    """ipFamily by the order of clusterCIDR; of what is no such range, that of IPv4."""
    versions = tuple(6 if ":" in part else 4 for part in cluster.split(","))
    return next((name for name, order in _VERSIONS.items() if order == versions), "ipv4")


def _image(data: Mapping[str, Any]) -> Image:
    return Image(**{key: _hashable(value) for key, value in data.items()})


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list) else value


def _share(entry: str | Mapping[str, Any]) -> Share:
    return Share(entry) if isinstance(entry, str) else Share(**entry)


def _component(data: Mapping[str, Any]) -> Component:
    env = tuple(sorted(data.get("env", {}).items()))
    return Component(**{**data, "command": tuple(data["command"]), "env": env})


def _image_dict(image: Image) -> dict[str, Any]:
    """What differs from the defaults."""
    plain: dict[str, Any] = {}
    for item in fields(image):
        value = getattr(image, item.name)
        if value != item.default:
            plain[item.name] = value if isinstance(value, str) else list(value)
    mappings = ("env", "programs", "tools")
    return {key: dict(value) if key in mappings else value for key, value in plain.items()}


def _contradictions(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    ranges: dict[str, tuple[Range, ...]] = {}
    for key in ("nodeCIDR", "clusterCIDR", "serviceCIDR"):
        text = getattr(spec.network, key)
        try:
            ranges[key] = tuple(parse_one(part) for part in text.split(","))
        except ValueError as error:
            yield ("network", key), str(error)
            continue
        if len({network.version for network in ranges[key]}) < len(ranges[key]):
            yield (
                ("network", key),
                f"{text} has two ranges of one IP family; dual-stack is one IPv4 and one IPv6 range",
            )
    cluster = spec.network.clusterCIDR
    if "clusterCIDR" in ranges and spec.network.ipFamily != _family_of(cluster):
        yield (
            ("network", "ipFamily"),
            f"{spec.network.ipFamily} is not that of clusterCIDR {cluster}; leave one out",
        )
    yield from _overlaps(spec.network, ranges)
    yield from _family_order(ranges)
    yield from _masks(spec, ranges)
    yield from _places(spec, ranges)
    yield from _ports(spec.network.serviceNodePortRange)
    yield from _pod_network(spec.cni, ranges)
    yield from _upstream(spec)
    if spec.manifests and not spec.kubernetes:
        yield ("manifests",), "need an API, and kubernetes: false leaves it out"
    yield from nodefiles.problems(spec.files, spec.nodes)
    yield from _components(spec)
    if spec.dns.corefile:
        from kubewire.components.coredns import check as coredns  # its plugins take 100 ms

        for text in coredns.problems(spec.dns.corefile):
            yield ("dns", "corefile"), text
    if spec.hostUsers is False and (why := spec.kubeProxy.needs_host_users):
        text = f"kubeProxy.mode: {spec.kubeProxy.mode} needs it, for {why}"
        yield ("hostUsers",), f"false is not possible here; {text}"
    yield from _images(spec)


def _pod_network(cni: CNI, ranges: Mapping[str, Sequence[Range]]) -> Iterator[tuple[KeyPath, str]]:
    addon = cni.network.addon
    if cni.backend not in addon.backend_names:
        text = f"{cni.plugin} has {', '.join(addon.backend_names)}; not {cni.backend}"
        if not cni.network.connects_pods:
            text = f"means nothing without a plugin; leave it out or set cni.plugin: {CNI.plugin}"
        yield ("cni", "backend"), text
    own = {setting.name for setting in addon.settings}
    for name, _ in cni.settings:
        if name not in own:
            yield (
                ("cni", name),
                f"is for {' and '.join(registry.networks_with(name))}, not for {cni.plugin}",
            )
    pods_have_ipv6 = any(network.version == 6 for network in ranges.get("clusterCIDR", ()))
    nodes_have_ipv6 = any(network.version == 6 for network in ranges.get("nodeCIDR", ()))
    limit = cni.network.ipv4_only
    if limit is not None and (pods_have_ipv6 or (limit.nodes and nodes_have_ipv6)):
        others = " or ".join(registry.dual_stack_networks())
        yield ("cni", "plugin"), f"{cni.plugin} {limit.reason}; take {others} for IPv6 pods"
    if cni.backend not in addon.backend_names:
        return
    for problem in addon.problems(cni.choice):
        yield ("cni", problem.setting), problem.text
    if pods_have_ipv6 and cni.choice.backend.ipv4_only:
        yield ("cni", "backend"), cni.choice.backend.ipv4_only


def _upstream(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    """What upstream's programs would refuse, in their words."""
    for key, data in spec.of_upstream():
        if not data:
            continue
        from kubewire.scenarios.engine.file import upstream

        of = upstream.settings()[key]
        if key == "kubeProxy" and spec.kubeProxy.mode != "none":
            data |= {"mode": spec.kubeProxy.mode}
        for text in of.wrong(of.effective(data)):
            yield (key,), text


def _images(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    if not spec.images:
        return
    from kubewire.components.kubelet.images.catalogue import Catalogue, InvalidCatalogue

    for name, image in spec.images:
        if image.argv and image.main:
            yield ("images", name), "has both argv and main; give one"
        elif not (image.argv or image.main or image.entrypoint or image.cmd):
            yield ("images", name), "needs argv or main"
        else:
            try:
                Catalogue.parse({name: _image_dict(image)}, "images")
            except InvalidCatalogue as error:
                yield ("images", name), str(error).removeprefix(f"images: {name}").lstrip(".: ")


def _components(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    there: dict[tuple[str, str], int] = {}
    for number, component in enumerate(spec.components):
        matching = nodefiles.chosen(component.nodes, spec.nodes)
        if not matching:
            text = f"{component.nodes} matches no node; there are {', '.join(spec.nodes)}"
            yield ("components", number, "nodes"), text
        for node in matching:
            first = there.setdefault((component.name, node), number)
            if first != number:
                yield (
                    ("components", number, "name"),
                    f"{component.name} is on {node} already, by components[{first}]",
                )
                break


def _overlaps(
    network: Network, ranges: Mapping[str, Sequence[Range]]
) -> Iterator[tuple[KeyPath, str]]:
    names = {"nodeCIDR": NODES, "clusterCIDR": PODS, "serviceCIDR": SERVICES}
    named = {names[key]: networks for key, networks in ranges.items()} | {
        _OUTSIDE: (OUTSIDE, OUTSIDE_IPV6)
    }
    keys = {name: key for key, name in names.items()}
    for found in () if network.allowOverlap else overlaps(named):
        (first, second), (one, other) = found.names, found.ranges
        cure = "make them disjoint, or say network.allowOverlap: true to see it"
        if second == _OUTSIDE:
            yield (
                ("network", keys[first]),
                f"{one} overlaps {other}, which lies outside the cluster: {found.consequence}; {cure}",
            )
        else:
            yield (
                ("network", keys[second]),
                f"{other} overlaps {keys[first]} {one}: {found.consequence}; {cure}",
            )
    for key, several in ranges.items():
        for one, (special, what) in itertools.product(several, _SPECIAL.items()):
            if one.overlaps(special):
                yield (
                    ("network", key),
                    f"{one} overlaps {special} ({what}); take a range of ordinary addresses",
                )


def _family_order(ranges: Mapping[str, Sequence[Range]]) -> Iterator[tuple[KeyPath, str]]:
    """Services need pods of their family, pods nodes; and default/kubernetes leads to the node that
    serves the API."""
    versions = {key: [network.version for network in networks] for key, networks in ranges.items()}
    for key, below in (("clusterCIDR", "nodeCIDR"), ("serviceCIDR", "clusterCIDR")):
        for version in versions.get(key, ()):
            if version not in versions.get(below, (version,)):
                yield (
                    ("network", key),
                    f"has an {_FAMILIES[version]} range, but {below} has none; add one there",
                )
    node, service = versions.get("nodeCIDR"), versions.get("serviceCIDR")
    if node and service and node[0] != service[0] and service[0] in node:
        # kube-apiserver's text (pkg/controlplane/apiserver/options).
        first, nodes = ranges["serviceCIDR"][0], ranges["nodeCIDR"][0]
        text = f'service IP family "{first}" must match public address family "{nodes}"'
        yield (
            ("network", "serviceCIDR"),
            f"{text}: begin nodeCIDR and serviceCIDR with the same family",
        )


def _masks(spec: LabSpec, ranges: Mapping[str, Sequence[Range]]) -> Iterator[tuple[KeyPath, str]]:
    clusters = ranges.get("clusterCIDR", ())
    yield from _mask_keys(spec.network, [cluster.version for cluster in clusters])
    for cluster in clusters:
        yield from _node_mask(spec, cluster, len(clusters) > 1)
    for service in ranges.get("serviceCIDR", ()):
        if not ServiceRange(service).fits:
            allowed = "/{} to /{}".format(*ServiceRange(service).allowed_masks)
            yield (
                ("network", "serviceCIDR"),
                f"/{service.prefixlen} is not possible; allowed masks: {allowed}",
            )


def _mask_keys(network: Network, versions: Sequence[int]) -> Iterator[tuple[KeyPath, str]]:
    """Which of the three may be given (setNodeCIDRMaskSizes of cmd/kube-controller-manager/app)."""
    own = {4: network.nodeCIDRMaskSizeIPv4, 6: network.nodeCIDRMaskSizeIPv6}
    if len(versions) > 1 and network.nodeCIDRMaskSize is not None:
        text = "is for one IP family; with two take nodeCIDRMaskSizeIPv4 and nodeCIDRMaskSizeIPv6"
        yield ("network", "nodeCIDRMaskSize"), text
    for version, size in own.items():
        key = f"nodeCIDRMaskSize{_FAMILIES[version]}"
        if size is not None and versions and version not in versions:
            yield ("network", key), f"clusterCIDR has no {_FAMILIES[version]} range"
        elif size is not None and network.nodeCIDRMaskSize is not None and len(versions) == 1:
            yield ("network", key), "is not allowed if nodeCIDRMaskSize is set"


def _node_mask(spec: LabSpec, cluster: Range, dual: bool) -> Iterator[tuple[KeyPath, str]]:
    size, nodes = spec.network.mask_size(cluster.version), len(spec.nodes)
    own = dual or getattr(spec.network, f"nodeCIDRMaskSize{_FAMILIES[cluster.version]}") is not None
    key: KeyPath = ("network", "nodeCIDRMaskSize" + (_FAMILIES[cluster.version] if own else ""))
    pods = PodRange(cluster, size)
    if not pods.fits:
        shortest, longest = pods.allowed_masks
        yield (
            key,
            f"/{size} does not fit in clusterCIDR {cluster}; allowed: {shortest} to {longest}",
        )
    elif pods.parts < nodes:
        yield (
            key,
            f"{cluster} holds {pods.parts} ranges of /{size}, but there are {nodes} nodes (control plane included)",
        )


def _places(spec: LabSpec, ranges: Mapping[str, Sequence[Range]]) -> Iterator[tuple[KeyPath, str]]:
    """Whether every host of the topology can have its place and an address."""
    wrong = [*topologyfile.problems(spec.topology, ranges.get("nodeCIDR", ()))]
    yield from ((("topology", *where), text) for where, text in wrong)
    if wrong or "nodeCIDR" not in ranges:
        return
    try:
        plan = spec.plan
    except PlanError as error:
        yield ("network", "nodeCIDR"), str(error)
        return
    if spec.topology.hosts:
        yield from (
            (("topology", *where), text)
            for where, text in topologyfile.node_problems(plan, ranges["nodeCIDR"])
        )
        yield from _cloud(spec, plan)


def _cloud(spec: LabSpec, plan: TopologyPlan) -> Iterator[tuple[KeyPath, str]]:
    """Whether a cloud's network finds its subnets: switches with nodes and a router."""
    if (
        not spec.cni.network.connects_pods
        or spec.cni.backend not in spec.cni.network.addon.backend_names
    ):
        return
    if spec.cni.network.addresses(spec.cni.choice).from_cluster_cidr:
        return
    with_router = {
        one.switch
        for machine in plan.machines
        if machine.role == "router"
        for one in machine.interfaces
    }
    lonely = [
        node.name for node in plan.nodes if node.interfaces[0].switch not in with_router - {""}
    ]
    router = plan.find("router")
    if lonely or router is None or router.role != "router":
        text = "needs a router named router, and one on the switch of each node's first interface"
        yield ("cni", "plugin"), f"{spec.cni.plugin} {text}"


def _ports(text: str) -> Iterator[tuple[KeyPath, str]]:
    low, high = (int(part) for part in text.split("-"))
    if not 1 <= low <= high <= 65535:
        yield (
            ("network", "serviceNodePortRange"),
            f"{text}: must be LOW-HIGH with 1 <= LOW <= HIGH <= 65535",
        )
