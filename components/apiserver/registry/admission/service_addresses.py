"""The allocation of ClusterIPs and node ports, which upstream has in the Service's registry.

An allocation must not outlive a write that fails. It is therefore a context in which the write
happens: when it ends with an exception, or the write is a dry run, the allocator is rebuilt from
the stored Services and those being written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kubewire.components.apiserver import status
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.store import Event, Store
from kubewire.components.kubeapi.resources import KubeObject


class Allocator(Protocol):
    """The part of service_allocation.ServiceAllocator that this module uses."""

    def allocate(self, new: KubeObject, old: KubeObject | None) -> list[FieldError]: ...
    def release(self, service: KubeObject) -> None: ...
    def rebuild(self, services: list[KubeObject]) -> None: ...


class ServiceAddresses:
    """Keeps an allocator consistent with the Services of the store."""

    def __init__(self, store: Store, allocator: Allocator) -> None:
        self._store = store
        self._allocator = allocator
        #: Services that are being written, by id(). A rebuild for another, refused write must keep
        #: what they have.
        self._reserved: dict[int, KubeObject] = {}
        allocator.rebuild([stored.copy() for stored in store.items("services")])
        store.subscribe("services", self._release)

    def _release(self, event: Event) -> None:
        if event.type == "DELETED":
            self._allocator.release(event.stored.obj)

    @contextmanager
    def allocated(self, new: KubeObject, old: KubeObject | None, dry_run: bool) -> Iterator[None]:
        """Gives new its addresses in place; when the context ends with an exception, takes them
        back. Raises StatusError.
        """
        call = self._store.owner.call
        kept = False
        try:
            call(self._reserve, new, old)
            yield
            kept = not dry_run
        finally:
            call(self._settle, new, kept)

    def _reserve(self, new: KubeObject, old: KubeObject | None) -> None:
        errors = self._allocator.allocate(new, old)
        self._reserved[id(new)] = new
        if errors:
            # A full range is not caused by a field of the Service, so upstream answers 500.
            if internal := next((error for error in errors if error.type == "InternalError"), None):
                if not internal.field:
                    raise status.StatusError(status.status(500, "", internal.detail))
                raise status.internal_error(internal.detail)
            raise status.invalid("", "Service", new["metadata"].get("name", ""), errors)

    def _settle(self, new: KubeObject, kept: bool) -> None:
        self._reserved.pop(id(new), None)
        if not kept:
            stored = [item.obj for item in self._store.items("services")]
            self._allocator.rebuild([*stored, *self._reserved.values()])
