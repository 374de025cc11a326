"""The descriptor of an add-on: a program that a cluster has besides Kubernetes itself.

A folder exports one descriptor, and a registry lists the descriptors of one kind:
components/networks/registry.py lists the pod networks, and components/policy/registry.py the
engines that enforce network policies. All code that must know an add-on uses its descriptor: the
lab file's schema and validation, the help, the documentation, and bring-up.

A descriptor is data and pure functions. A function gets facts (Cluster, Host) and the lab file's
choice (Choice), and returns values; it reads no file, starts nothing and knows neither labs nor
Mininet. So this module imports nothing of kubewire, and the code that brings a cluster up makes the
facts.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Mode = TypeVar("Mode")
CIDR = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Interface:
    """A network interface of a host: its name there, its address with prefix length, the switch
    that it is plugged into, and the name of the switch's port."""

    name: str
    address: str
    switch: str
    port: str


@dataclass(frozen=True)
class Host:
    """A node or a router. addresses: those of the first interface, one of each IP family, without
    prefix lengths."""

    name: str
    interfaces: tuple[Interface, ...]
    addresses: tuple[str, ...]

    @property
    def interface(self) -> Interface:
        """The first interface, which leads to the other nodes."""
        return self.interfaces[0]

    @property
    def pid(self) -> str:
        """The placeholder, in arguments, for the pid whose namespaces are the host's."""
        return f"@pid:{self.name}@"


@dataclass(frozen=True)
class Cluster:
    """The facts of a cluster. A range is one CIDR, or two of both IP families with a comma.

    network, network_backend: the names of its pod network and of the network's backend.
    policy_engine: the name of what enforces network policies.
    """

    node_cidr: str
    cluster_cidr: str
    nodes: tuple[Host, ...]
    routers: tuple[Host, ...]
    network: str = ""
    network_backend: str = ""
    policy_engine: str = "none"

    @property
    def pod_ranges(self) -> tuple[CIDR, ...]:
        """The ranges of cluster_cidr, the primary family's first."""
        return tuple(ipaddress.ip_network(part) for part in self.cluster_cidr.split(","))


class Role(enum.Enum):
    """The role of a process in its add-on, and where it runs."""

    AGENT = "agent"  # on a node; it has a kubeconfig there
    NODE = "node"  # on a node, beside the agent
    FABRIC = "fabric"  # in the namespace of the switches, outside every host


@dataclass(frozen=True)
class Process:
    """A process to start. main: "package.module:function". host: the node, "" for Role.FABRIC.

    user: the user as which an agent authenticates; its kubeconfig is kubeconfig_path(name).
    """

    role: Role
    host: str
    name: str
    main: str
    arguments: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True)
class File:
    """A file that a node has before any process starts."""

    host: str
    path: str
    content: bytes


@dataclass(frozen=True)
class Installation:
    """What an add-on brings into one cluster. objects: those of its manifest, in the order in which
    they are applied."""

    processes: tuple[Process, ...] = ()
    files: tuple[File, ...] = ()
    objects: tuple[Mapping[str, Any], ...] = ()

    def __or__(self, other: Installation) -> Installation:
        """What two add-ons bring; an object that both have is there once."""
        objects = (*self.objects, *(one for one in other.objects if one not in self.objects))
        return Installation(self.processes + other.processes, self.files + other.files, objects)


@dataclass(frozen=True)
class Backend(Generic[Mode]):
    """One way in which an add-on works.

    mode: the values that the add-on's own functions read, so that none of them has to parse the
    name. requires: features that the kernel must have, by the names of
    components/kernel/features.py. ipv4_only: the sentence that refuses IPv6 pods, "" if they are
    possible.
    """

    name: str
    mode: Mode
    requires: tuple[str, ...] = ()
    ipv4_only: str = ""


@dataclass(frozen=True)
class Setting:
    """A further key of the lab file. schema: JSON Schema of its value, with a description that is a
    sentence, and examples. default: the value if the file has none."""

    name: str
    schema: Mapping[str, Any]
    default: Any = None

    @property
    def is_mapping(self) -> bool:
        """Whether the value is a mapping, which a lab file may leave empty."""
        return bool(self.schema["type"] == "object")


@dataclass(frozen=True)
class Choice(Generic[Mode]):
    """A lab file's choice: a backend, and a value for each setting of the add-on."""

    backend: Backend[Mode]
    settings: Mapping[str, Any]

    @property
    def mode(self) -> Mode:
        return self.backend.mode


@dataclass(frozen=True)
class Problem:
    """An error in a choice: the setting's name, and the rest of the sentence after it."""

    setting: str
    text: str


def no_problems(_: Choice[Any]) -> Iterable[Problem]:
    """The problems of an add-on in which every backend fits every setting: none."""
    return ()


@dataclass(frozen=True)
class AddOn(Generic[Mode]):
    """The descriptor. The first backend is the default.

    package: the folder's dotted name (__package__). upstream: the programs that it stands for.
    summary: its line in the help and in the documentation. directories: the private directories of
    every node.
    """

    name: str
    package: str
    upstream: str
    summary: str
    backends: tuple[Backend[Mode], ...]
    install: Callable[[Cluster, Choice[Mode]], Installation]
    settings: tuple[Setting, ...] = ()
    problems: Callable[[Choice[Mode]], Iterable[Problem]] = no_problems
    directories: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return self.package.rpartition(".")[2]

    @property
    def backend_names(self) -> tuple[str, ...]:
        return tuple(backend.name for backend in self.backends)

    def choose(self, backend: str, given: Mapping[str, Any]) -> Choice[Mode]:
        """The backend of that name with the given settings. Raises KeyError if the add-on does not
        have it."""
        by_name = {one.name: one for one in self.backends}
        settings = {
            setting.name: given.get(setting.name, setting.default) for setting in self.settings
        }
        return Choice(by_name[backend], settings)


def rule(verbs: str, group: str, resources: str, *names: str) -> dict[str, Any]:
    """A PolicyRule of a manifest; verbs and resources are words with spaces between them."""
    written: dict[str, Any] = {
        "apiGroups": [group],
        "resources": resources.split(),
        "verbs": verbs.split(),
    }
    return written | ({"resourceNames": list(names)} if names else {})


def account(
    namespace: str, name: str, cluster: Sequence[Any] = (), local: Sequence[Any] = ()
) -> tuple[Mapping[str, Any], ...]:
    """A ServiceAccount, and the roles that give it rules: those for the whole cluster, and those
    for its namespace. All have its name, as in most manifests."""
    metadata = {"name": name, "namespace": namespace}
    objects: list[Mapping[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    ]
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    roles = (("ClusterRole", {"name": name}, cluster), ("Role", metadata, local))
    for kind, where, rules in roles:
        if not rules:
            continue
        common = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": where}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        objects.append(common | {"kind": kind, "rules": list(rules)})
        binding = {"kind": f"{kind}Binding", "roleRef": reference, "subjects": [subject]}
        objects.append(common | binding)
    return tuple(objects)


def kubeconfig_path(agent: str) -> str:
    """The path of an agent's kubeconfig on a node."""
    return f"/etc/kubernetes/{agent}.conf"
