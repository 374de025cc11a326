"""What is served: the built-in kinds and, live, those of CustomResourceDefinitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kubewire.components.apiserver.kinds.spec import FieldError, KindSpec
from kubewire.components.apiserver.registry import eventconversion
from kubewire.components.apiserver.status import qualified
from kubewire.components.kubeapi.resources import KubeObject

#: Order of groups in discovery, as kube-apiserver's; kubectl resolves ambiguous short names by it.
_GROUP_ORDER = (
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
)
#: Kinds whose metadata.generation upstream counts.
_GENERATIONS = frozenset(
    {
        "pods",
        "replicationcontrollers",
        "deployments.apps",
        "replicasets.apps",
        "daemonsets.apps",
        "statefulsets.apps",
        "jobs.batch",
        "cronjobs.batch",
        "networkpolicies.networking.k8s.io",
        "ingresses.networking.k8s.io",
        "ingressclasses.networking.k8s.io",
        "endpointslices.discovery.k8s.io",
        "poddisruptionbudgets.policy",
        "customresourcedefinitions.apiextensions.k8s.io",
        "priorityclasses.scheduling.k8s.io",
    }
)


def _same(obj: KubeObject) -> KubeObject:
    return obj


def _no_unknown_fields(obj: KubeObject) -> list[str]:
    return []


def _no_errors(obj: KubeObject) -> list[FieldError]:
    return []


@dataclass(frozen=True)
class Served:
    """One resource at one version.

    storage_version: the apiVersion objects are stored with. from_storage and to_storage convert; both may
    return the object they got. decode_errors: what the type itself forbids (a custom resource's schema).
    """

    spec: KindSpec
    storage_version: str
    custom: bool = False
    to_storage: Callable[[KubeObject], KubeObject] = _same
    from_storage: Callable[[KubeObject], KubeObject] = _same
    prune: Callable[[KubeObject], list[str]] = _no_unknown_fields
    schema_errors: Callable[[KubeObject], list[FieldError]] = _no_errors
    #: How the lists of a custom resource merge; built-in kinds have the openapi package's list_map_keys.
    list_keys: Callable[[tuple[str, ...]], tuple[str, ...] | None] | None = None
    deprecation: str = ""

    @property
    def group(self) -> str:
        return self.spec.resource.group

    @property
    def version(self) -> str:
        return self.spec.resource.version

    @property
    def plural(self) -> str:
        return self.spec.resource.plural

    @property
    def kind(self) -> str:
        return self.spec.resource.kind

    @property
    def namespaced(self) -> bool:
        return self.spec.resource.namespaced

    @property
    def api_version(self) -> str:
        return self.spec.resource.api_version

    @property
    def storage(self) -> str:
        """The store's name of the resource."""
        return _STORED_AS.get(self.api_version + "/" + self.plural, qualified(self.group, self.plural))

    @property
    def stored_as_served(self) -> bool:
        return self.api_version == self.storage_version

    @property
    def counts_generation(self) -> bool:
        return self.custom or self.storage in _GENERATIONS


#: Two groups, one storage.
_STORED_AS = {"events.k8s.io/v1/events": "events"}


#: What a request for a built-in kind is warned of (k8s.io/api's prerelease-lifecycle tags).
_DEPRECATIONS = {"v1/endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}


def _built_in(spec: KindSpec) -> Served:
    if spec.resource.group == "events.k8s.io":
        return Served(spec, "v1", to_storage=eventconversion.to_core, from_storage=eventconversion.from_core)
    resource = spec.resource
    deprecation = _DEPRECATIONS.get(f"{resource.api_version}/{resource.plural}", "")
    return Served(spec, resource.api_version, deprecation=deprecation)


@dataclass
class Catalog:
    """Lookup by (group, version, plural). serial grows with each change, for caches of what is derived."""

    builtin: Mapping[tuple[str, str, str], Served]
    custom: dict[tuple[str, str, str], Served] = field(default_factory=dict)
    serial: int = 0

    @classmethod
    def of(cls, kinds: Iterable[KindSpec]) -> Catalog:
        served = [_built_in(spec) for spec in kinds]
        return cls({(one.group, one.version, one.plural): one for one in served})

    def find(self, group: str, version: str, plural: str) -> Served | None:
        key = (group, version, plural)
        return self.builtin.get(key) or self.custom.get(key)

    def replace_custom(self, served: Iterable[Served]) -> None:
        self.custom = {(one.group, one.version, one.plural): one for one in served}
        # After it: who reads the number first sees what it stands for.
        self.serial += 1

    def all(self) -> list[Served]:
        return [*self.builtin.values(), *self.custom.values()]


def group_rank(group: str) -> tuple[int, str]:
    """Sort key of groups: upstream's order, then the custom ones by name."""
    return (_GROUP_ORDER.index(group), "") if group in _GROUP_ORDER else (len(_GROUP_ORDER), group)


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sort key of versions, best first: v2, v1, v1beta1, v1alpha1, others (as kubectl orders them)."""
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), version)
