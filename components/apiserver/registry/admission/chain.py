"""The admission chain: every plugin in upstream's order, and the Services' addresses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from kubewire.components.apiserver.registry.admission.certificates import (
    CertificateRequester,
    CertificateSubjectRestriction,
)
from kubewire.components.apiserver.registry.admission.default_ingress_class import (
    DefaultIngressClass,
)
from kubewire.components.apiserver.registry.admission.default_toleration_seconds import (
    DefaultTolerationSeconds,
)
from kubewire.components.apiserver.registry.admission.limit_ranger import LimitRanger
from kubewire.components.apiserver.registry.admission.namespace_lifecycle import NamespaceLifecycle
from kubewire.components.apiserver.registry.admission.node_restriction import NodeRestriction
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.admission.pod_topology_labels import (
    PodTopologyLabels,
)
from kubewire.components.apiserver.registry.admission.podsecurity.plugin import PodSecurity
from kubewire.components.apiserver.registry.admission.priority import Priority
from kubewire.components.apiserver.registry.admission.resource_quota import ResourceQuota
from kubewire.components.apiserver.registry.admission.runtime_class import RuntimeClass
from kubewire.components.apiserver.registry.admission.service_account import ServiceAccount
from kubewire.components.apiserver.registry.admission.service_addresses import (
    Allocator,
    ServiceAddresses,
)
from kubewire.components.apiserver.registry.admission.storage import (
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
)
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Store

#: Upstream's order (AllOrderedPlugins of kubeapiserver/options/plugins.go).
PLUGINS: tuple[type[Plugin], ...] = (
    NamespaceLifecycle,
    LimitRanger,
    ServiceAccount,
    NodeRestriction,
    PodSecurity,
    Priority,
    DefaultTolerationSeconds,
    DefaultStorageClass,
    StorageObjectInUseProtection,
    PersistentVolumeClaimResize,
    RuntimeClass,
    CertificateRequester,
    CertificateSubjectRestriction,
    DefaultIngressClass,
    PodTopologyLabels,
)
#: What comes after the plugins that ask other programs, because it counts what is really written.
LAST: tuple[type[Plugin], ...] = (ResourceQuota,)


class _Chosen(NamedTuple):
    """The plugins that have something to do for one kind of request."""

    admitting: tuple[Plugin, ...]
    validating: tuple[Plugin, ...]


class Admission:
    """Admits writes; without an allocator it does not change Services."""

    def __init__(
        self,
        store: Store,
        allocator: Allocator | None,
        plugins: tuple[type[Plugin], ...] = PLUGINS,
        outside: tuple[Plugin, ...] = (),
    ) -> None:
        """outside has the plugins that ask other programs or policies; they come late."""
        self._plugins = (
            *(plugin(store) for plugin in plugins),
            *outside,
            *(plugin(store) for plugin in LAST),
        )
        self._outside = outside
        self._with_serial = [item for item in outside if type(item).serial is not Plugin.serial]
        self._waiting: dict[tuple[str, str, str, str, tuple[Operation, ...]], bool] = {}
        self._waiting_at = -1
        self._addresses = None if allocator is None else ServiceAddresses(store, allocator)
        self._handling: dict[tuple[str, bool, Operation, str], _Chosen] = {}

    async def close(self) -> None:
        for plugin in self._outside:
            await plugin.close()

    def admit(self, attributes: Attributes) -> None:
        """Lets every plugin change the object; raises StatusError."""
        plugins = self._plugins_for(attributes).admitting
        for plugin in plugins:
            plugin.admit(attributes)
        if attributes.reinvoke:
            attributes.reinvoked = True
            for plugin in plugins:
                plugin.admit(attributes)

    def waits(self, served: Served, operations: tuple[Operation, ...], subresource: str) -> bool:
        """Whether such a request may have to wait for another program."""
        serial = 0
        for item in self._with_serial:
            serial += item.serial
        if serial != self._waiting_at:
            self._waiting.clear()
            self._waiting_at = serial
        key = (served.group, served.version, served.plural, subresource, operations)
        found = self._waiting.get(key)
        if found is None:
            found = self._waiting[key] = any(
                plugin.waits(served, operation, subresource)
                for plugin in self._outside
                for operation in operations
            )
        return found

    def validate(self, attributes: Attributes) -> None:
        """Lets every plugin check the valid object; raises StatusError."""
        for plugin in self._plugins_for(attributes).validating:
            plugin.validate(attributes)

    def addresses(self, attributes: Attributes) -> AbstractContextManager[None]:
        """The context of a write: when it ends with an exception, allocations are undone."""
        new = attributes.obj
        old = attributes.old or None
        if self._addresses is None or attributes.served.storage != "services":
            return nullcontext()
        if old is not None and new.get("spec") == old.get("spec"):
            return nullcontext()
        return self._addresses.allocated(new, old, attributes.dry_run)

    def _plugins_for(self, attributes: Attributes) -> _Chosen:
        served = attributes.served
        key = (served.storage, served.namespaced, attributes.operation, attributes.subresource)
        found = self._handling.get(key)
        if found is None:
            found = self._handling[key] = self._chosen(
                served, attributes.operation, attributes.subresource
            )
        return found

    def _chosen(self, served: Served, operation: Operation, subresource: str) -> _Chosen:
        plugins = [item for item in self._plugins if item.handles(served, operation, subresource)]
        return _Chosen(
            tuple(item for item in plugins if type(item).admit is not Plugin.admit),
            tuple(item for item in plugins if type(item).validate is not Plugin.validate),
        )
