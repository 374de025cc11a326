"""The resources that the server has: built-in kinds and those of CustomResourceDefinitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kubewire.components.apiserver.kinds.spec import FieldError, KindSpec
from kubewire.components.apiserver.status import qualified
from kubewire.components.kubeapi.resources import KubeObject

#: The order of groups in discovery, the same as kube-apiserver's. kubectl resolves ambiguous short
#: names with it.
_GROUP_ORDER = (
    "",
    "apiregistration.k8s.io",
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
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
)


def _same(obj: KubeObject) -> KubeObject:
    return obj


def _no_unknown_fields(obj: KubeObject) -> list[str]:
    return []


def _no_errors(obj: KubeObject) -> list[FieldError]:
    return []


@dataclass(frozen=True)
class Served:
    """A resource at one version.

    storage_version is the apiVersion with which objects are stored; from_storage and to_storage
    convert, and may return the object they were given. Those of a custom resource convert from any
    version. schema_errors validates against a custom resource's schema. Custom objects that were
    stored before the revision defaults_since may lack defaults of today's schema.

    A request asks for group, kind and storage some thirty times, so each is computed only once.
    """

    spec: KindSpec
    storage_version: str
    custom: bool = False
    to_storage: Callable[[KubeObject], KubeObject] = _same
    from_storage: Callable[[KubeObject], KubeObject] = _same
    prune: Callable[[KubeObject], list[str]] = _no_unknown_fields
    schema_errors: Callable[[KubeObject], list[FieldError]] = _no_errors
    #: Asks a webhook for many objects at once, so that reading may have to wait.
    converts: Callable[[Sequence[KubeObject]], list[KubeObject]] | None = None
    #: What is added to the errors of a custom object whose rules cannot be evaluated.
    skipped_rules: tuple[FieldError, ...] = ()
    #: The keys of a custom resource's lists; built-in kinds use list_map_keys of the openapi
    #: package.
    list_keys: Callable[[tuple[str, ...]], tuple[str, ...] | None] | None = None
    deprecation: str = ""
    defaults_since: int = 0

    @cached_property
    def group(self) -> str:
        return self.spec.resource.group

    @cached_property
    def version(self) -> str:
        return self.spec.resource.version

    @cached_property
    def plural(self) -> str:
        return self.spec.resource.plural

    @cached_property
    def kind(self) -> str:
        return self.spec.resource.kind

    @cached_property
    def namespaced(self) -> bool:
        return self.spec.resource.namespaced

    @cached_property
    def api_version(self) -> str:
        return self.spec.resource.api_version

    @cached_property
    def storage(self) -> str:
        """The name of the resource in the store."""
        shared = self.spec.storage
        return shared.resource if shared else qualified(self.group, self.plural)

    @cached_property
    def stored_as_served(self) -> bool:
        return self.api_version == self.storage_version

    def is_shown(self, obj: KubeObject) -> bool:
        """Whether a stored object has the form in which it is served.

        A custom object keeps the version at which it was stored until its next write.
        """
        if self.custom:
            return bool(obj["apiVersion"] == self.api_version)
        return self.stored_as_served

    @cached_property
    def counts_generation(self) -> bool:
        return self.custom or self.spec.generation


def _built_in(spec: KindSpec) -> Served:
    version = spec.resource.api_version
    if (shared := spec.storage) is None:
        return Served(spec, version, deprecation=spec.deprecation)
    return Served(
        spec,
        shared.version,
        to_storage=shared.write,
        from_storage=shared.read,
        deprecation=spec.deprecation,
    )


@dataclass(frozen=True)
class Remote:
    """A version that a Service of the cluster serves behind this server: the priorities of its
    APIService, and its resources as aggregated discovery lists them; fresh if it answers now."""

    priority: int
    version_priority: int
    resources: tuple[KubeObject, ...] = ()
    fresh: bool = False


@dataclass
class Catalog:
    """Looks resources up by (group, version, plural); serial grows with each change, for caches.

    remote has what other servers serve by group and version; it wins over what is here.
    """

    builtin: Mapping[tuple[str, str, str], Served]
    custom: dict[tuple[str, str, str], Served] = field(default_factory=dict)
    remote: Mapping[tuple[str, str], Remote] = field(default_factory=dict)
    serial: int = 0

    @classmethod
    def of(cls, kinds: Iterable[KindSpec]) -> Catalog:
        served = [_built_in(spec) for spec in kinds]
        return cls({(item.group, item.version, item.plural): item for item in served})

    def find(self, group: str, version: str, plural: str) -> Served | None:
        key = (group, version, plural)
        return self.builtin.get(key) or self.custom.get(key)

    def replace_custom(self, served: Iterable[Served]) -> None:
        self.custom = {(item.group, item.version, item.plural): item for item in served}
        # The serial changes last, so that a reader of the new serial never sees the old resources.
        self.serial += 1

    def replace_remote(self, remote: Mapping[tuple[str, str], Remote]) -> None:
        if remote != self.remote:
            self.remote = remote
            self.serial += 1

    def all(self) -> list[Served]:
        return [*self.builtin.values(), *self.custom.values()]


def group_rank(group: str) -> tuple[int, str]:
    """Sort key of groups: upstream's order, then custom groups by name."""
    return (_GROUP_ORDER.index(group), "") if group in _GROUP_ORDER else (len(_GROUP_ORDER), group)


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sort key of versions, the preferred one first: v2, v1, v1beta1, v1alpha1, then others.

    kubectl orders them in the same way.
    """
    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if match is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), version)
