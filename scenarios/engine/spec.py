"""What a lab file says, checked: LabSpec and its parts.

The form is lab.schema.json; what a schema cannot say (ranges that overlap, masks that cannot fit) is checked
here. Defaults are those of kubeadm, kube-proxy and flannel, and of the address table in docs/architecture.md.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal

from scenarios.engine.check import check
from scenarios.engine.document import Document, KeyPath, SpecError, read_text
from topologies.plan import OUTSIDE, SHAPES, PlanError

__all__ = ["CNI", "DNS", "Image", "KubeProxy", "LabSpec", "Links", "Network", "SpecError", "Topology"]

#: Ranges whose addresses upstream refuses as endpoints (ValidateNonSpecialIP) or no kernel routes; RFC 6890.
_SPECIAL = {
    IPv4Network("0.0.0.0/8"): "this network",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
}


@dataclass(frozen=True)
class Links:
    """bandwidth: Mbit/s of every link, None: as fast as the machine can."""

    bandwidth: float | None = None


@dataclass(frozen=True)
class Topology:
    """workers does not count the control-plane node."""

    shape: Literal["one-segment", "two-racks"] = "one-segment"
    workers: int = 3
    links: Links = Links()


@dataclass(frozen=True)
class Network:
    """Address ranges, under the names of the lab file (which are Kubernetes' own)."""

    nodeCIDR: str = "172.18.0.0/16"
    clusterCIDR: str = "10.244.0.0/16"
    nodeCIDRMaskSize: int = 24
    serviceCIDR: str = "10.96.0.0/12"
    serviceNodePortRange: str = "30000-32767"
    clusterDomain: str = "cluster.local"


@dataclass(frozen=True)
class CNI:
    """plugin "none": nothing is installed, nodes stay NotReady until somebody installs one."""

    plugin: Literal["flannel", "none"] = "flannel"
    backend: Literal["vxlan", "host-gw"] = "vxlan"


@dataclass(frozen=True)
class KubeProxy:
    """mode "none": no kube-proxy runs."""

    mode: Literal["iptables", "nftables", "ipvs", "none"] = "iptables"

    @property
    def requires(self) -> tuple[str, ...]:
        """What the mode needs of the kernel beyond what every lab does, by doctor's names."""
        return ("ip_vs", "dummy", "ipset") if self.mode == "ipvs" else ()


@dataclass(frozen=True)
class DNS:
    """replicas of kube-system/coredns; 0: no cluster DNS."""

    replicas: int = 2


@dataclass(frozen=True)
class Image:
    """A program of the machine under an image name: a command (argv) or a Python function (main)."""

    argv: tuple[str, ...] = ()
    main: str = ""
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LabSpec:
    """A whole lab file. Equal specs can share a lab (name does not count). kubernetes: False: only hosts and links."""

    name: str = field(default="", compare=False)
    kubernetes: bool = True
    topology: Topology = Topology()
    network: Network = Network()
    cni: CNI = CNI()
    kubeProxy: KubeProxy = KubeProxy()
    dns: DNS = DNS()
    images: tuple[tuple[str, Image], ...] = ()

    @property
    def has_working_dns(self) -> bool:
        """CoreDNS needs a pod network, and kube-proxy to reach the API server's Service."""
        return bool(self.dns.replicas) and self.cni.plugin != "none" and self.kubeProxy.mode != "none"

    @classmethod
    def load(cls, path: str | Path) -> LabSpec:
        """Read a lab file. Raises SpecError (bad content) and OSError (cannot be read)."""
        return cls.from_document(Document.parse(read_text(Path(path)), str(path)))

    @classmethod
    def parse(cls, mapping: Mapping[str, Any], where: str = "lab") -> LabSpec:
        """Plain data as from YAML; where names it in errors. Raises SpecError."""
        return cls.from_document(Document.of(mapping, where))

    @classmethod
    def from_document(cls, document: Document) -> LabSpec:
        """Check against the schema, build, then check what the schema cannot say."""
        check(document, "lab.schema.json")
        spec = _build(document.data)
        problems = [document.problem(path, what) for path, what in _contradictions(spec)]
        if problems:
            raise SpecError(problems)
        return spec

    def as_dict(self) -> dict[str, Any]:
        """The lab file again, all defaults written out: LabSpec.parse(spec.as_dict()) == spec."""
        plain = asdict(self)
        plain["images"] = {name: _image_dict(image) for name, image in self.images}
        if self.topology.links.bandwidth is None:
            plain["topology"]["links"] = {}
        if not self.name:
            del plain["name"]
        return plain

    def label(self) -> str:
        """For people: "flannel/vxlan · kube-proxy iptables · 3 workers"."""
        if not self.kubernetes:
            return f"no Kubernetes · {self.topology.workers + 1} hosts" + (
                "" if self.topology.shape == "one-segment" else f" · {self.topology.shape}"
            )
        cni = f"{self.cni.plugin}/{self.cni.backend}" if self.cni.plugin == "flannel" else "no CNI"
        shape = "" if self.topology.shape == "one-segment" else f" · {self.topology.shape}"
        workers = f"{self.topology.workers} worker{'' if self.topology.workers == 1 else 's'}"
        return f"{cni} · kube-proxy {self.kubeProxy.mode} · {workers}{shape}"


def _build(data: Mapping[str, Any]) -> LabSpec:
    topology = dict(data.get("topology", {}))
    if "links" in topology:
        topology["links"] = Links(**topology["links"])
    return LabSpec(
        name=data.get("name", ""),
        kubernetes=data.get("kubernetes", True),
        topology=Topology(**topology),
        network=Network(**data.get("network", {})),
        cni=CNI(**data.get("cni", {})),
        kubeProxy=KubeProxy(**data.get("kubeProxy", {})),
        dns=DNS(**data.get("dns", {})),
        images=tuple((name, _image(image)) for name, image in sorted(data.get("images", {}).items())),
    )


def _image(data: Mapping[str, Any]) -> Image:
    env = tuple(sorted(data.get("env", {}).items()))
    return Image(argv=tuple(data.get("argv", ())), main=data.get("main", ""), env=env)


def _image_dict(image: Image) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    if image.argv:
        plain["argv"] = list(image.argv)
    if image.main:
        plain["main"] = image.main
    if image.env:
        plain["env"] = dict(image.env)
    return plain


def _contradictions(spec: LabSpec) -> Iterator[tuple[KeyPath, str]]:
    ranges: dict[str, IPv4Network] = {}
    for key in ("nodeCIDR", "clusterCIDR", "serviceCIDR"):
        text = getattr(spec.network, key)
        try:
            ranges[key] = IPv4Network(text)
        except ValueError as error:
            yield ("network", key), _range_problem(text, error)
    yield from _overlaps(ranges)
    yield from _masks(spec, ranges)
    yield from _places(spec, ranges)
    yield from _ports(spec.network.serviceNodePortRange)
    if spec.cni.plugin == "none" and spec.cni.backend != CNI().backend:
        yield ("cni", "backend"), "means nothing without a plugin; leave it out or set cni.plugin: flannel"
    for name, image in spec.images:
        if image.argv and image.main:
            yield ("images", name), "has both argv and main; give one"
        if not image.argv and not image.main:
            yield ("images", name), "needs argv or main"


def _range_problem(text: str, error: ValueError) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is not an IPv4 range ({error})"
    return f"{text} has host bits set; the range it lies in is {network}"


def _overlaps(ranges: Mapping[str, IPv4Network]) -> Iterator[tuple[KeyPath, str]]:
    for (first, one), (second, other) in itertools.combinations(ranges.items(), 2):
        if one.overlaps(other):
            yield ("network", second), f"{other} overlaps {first} {one}; the ranges must be disjoint"
    for key, network in ranges.items():
        if network.overlaps(OUTSIDE):
            yield ("network", key), f"{network} overlaps {OUTSIDE}, which lies outside the cluster"
        for special, what in _SPECIAL.items():
            if network.overlaps(special):
                yield ("network", key), f"{network} overlaps {special} ({what}); take a range of ordinary addresses"


def _masks(spec: LabSpec, ranges: Mapping[str, IPv4Network]) -> Iterator[tuple[KeyPath, str]]:
    size, nodes = spec.network.nodeCIDRMaskSize, spec.topology.workers + 1
    if cluster := ranges.get("clusterCIDR"):
        longest = min(30, cluster.prefixlen + 16)  # upstream's limit: 16 bits between the two masks
        if not cluster.prefixlen <= size <= longest:
            allowed = f"{cluster.prefixlen} to {longest}"
            yield (
                ("network", "nodeCIDRMaskSize"),
                f"/{size} does not fit in clusterCIDR {cluster}; allowed: {allowed}",
            )
        elif 2 ** (size - cluster.prefixlen) < nodes:
            room = 2 ** (size - cluster.prefixlen)
            yield (
                ("network", "nodeCIDRMaskSize"),
                f"{cluster} holds {room} ranges of /{size}, but there are {nodes} nodes (control plane included)",
            )
    if (service := ranges.get("serviceCIDR")) and not 12 <= service.prefixlen <= 28:
        yield ("network", "serviceCIDR"), f"/{service.prefixlen} is not possible; allowed masks: /12 to /28"


def _places(spec: LabSpec, ranges: Mapping[str, IPv4Network]) -> Iterator[tuple[KeyPath, str]]:
    """Has every host of the topology an address?"""
    if node := ranges.get("nodeCIDR"):
        try:
            SHAPES[spec.topology.shape](spec.topology.workers, str(node))
        except PlanError as error:
            yield ("network", "nodeCIDR"), str(error)


def _ports(text: str) -> Iterator[tuple[KeyPath, str]]:
    low, high = (int(part) for part in text.split("-"))
    if not 1 <= low <= high <= 65535:
        yield ("network", "serviceNodePortRange"), f"{text}: must be LOW-HIGH with 1 <= LOW <= HIGH <= 65535"
