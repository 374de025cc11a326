"""What a plugin of the admission chain is given, and what it can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Store
from kubewire.components.kubeapi.resources import KubeObject

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]


@dataclass
class Attributes:
    """A request as the plugins see it (admission.Attributes of apiserver).

    obj is the object that will be stored, which plugins may change in admit, and is empty at a
    deletion. old is the stored object, which they may not change, and is empty at a creation.
    Plugins append to warnings what the client should be told.
    """

    served: Served
    operation: Operation
    namespace: str
    name: str
    obj: KubeObject
    old: KubeObject
    subresource: str = ""
    dry_run: bool = False
    user: str = ""
    warnings: list[str] = field(default_factory=list)


class Plugin:
    """One step of the chain; raises StatusError to refuse a request."""

    name: ClassVar[str]

    def __init__(self, store: Store) -> None:
        self.store = store

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        """Whether the plugin has to see such requests; asked once for each kind of request."""
        raise NotImplementedError

    def admit(self, attributes: Attributes) -> None:
        """Changes attributes.obj, or refuses it before it is validated."""

    def validate(self, attributes: Attributes) -> None:
        """Refuses attributes.obj, which is valid and changes no more."""
