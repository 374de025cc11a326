"""What a request asks of the registry, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Operation
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Stored
from kubewire.components.apiserver.users import SERVER, User
from kubewire.components.kubeapi.resources import KubeObject
from kubewire.components.kubeapi.selectors import FieldSelector, LabelSelector


@dataclass(frozen=True)
class WriteOptions:
    """The query of a write (metav1.CreateOptions, UpdateOptions and PatchOptions)."""

    dry_run: bool = False
    field_manager: str = "unknown"
    field_validation: str = "Warn"
    force: bool = False
    user: User = SERVER
    #: The kind of these options in meta.k8s.io: CreateOptions, UpdateOptions or PatchOptions.
    kind: str = "UpdateOptions"
    #: What field_validation reports about the body itself, such as repeated keys.
    findings: tuple[str, ...] = ()
    #: For a patch, what an error shows of it, made from the patched object.
    patch_text: Callable[[KubeObject], str] | None = None

    def as_json(self) -> KubeObject:
        """The options as webhooks and policies are shown them."""
        shown: KubeObject = {"kind": self.kind, "apiVersion": "meta.k8s.io/v1"}
        if self.dry_run:
            shown["dryRun"] = ["All"]
        shown["fieldManager"] = self.field_manager
        shown["fieldValidation"] = self.field_validation
        if self.force:
            shown["force"] = True
        return shown


@dataclass(frozen=True)
class Target:
    """What a request is about whose body is not the resource's object."""

    served: Served
    operation: Operation
    namespace: str
    name: str
    subresource: str
    options: WriteOptions


@dataclass(frozen=True)
class Result:
    """The object of an answer; body is its JSON at the served version."""

    obj: KubeObject
    body: bytes
    code: int = 200
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The objects of a resource that a list or watch selects; namespace "" is all namespaces."""

    served: Served
    namespace: str = ""
    labels: LabelSelector | None = None
    fields: FieldSelector | None = None

    def matches(self, stored: Stored) -> bool:
        if self.namespace and stored.key.namespace != self.namespace:
            return False
        if self.labels is not None:
            labels = stored.obj["metadata"].get("labels")
            if not self.labels.matches(labels):
                return False
        return self.fields is None or self.fields.matches(selectable_fields(self.served, stored))


def selectable_fields(served: Served, stored: Stored) -> dict[str, str]:
    """metadata.name, metadata.namespace and the kind's fields; computed once per revision."""
    if stored.fields is None:
        names = {"metadata.name": stored.key.name}
        if served.namespaced:
            names["metadata.namespace"] = stored.key.namespace
        stored.fields = names | served.spec.selectable_fields(stored.obj)
    return stored.fields


def check_field_selector(served: Served, selector: FieldSelector) -> None:
    """Raises 400 when the kind cannot be selected by one of the fields."""
    own = served.spec.selectable_fields({"metadata": {}})
    known = {"metadata.name", "metadata.namespace"} | own.keys()
    for name in selector.fields():
        if name not in known:
            raise status.bad_request(f"field label not supported: {name}")
