"""What a plugin of the admission chain is given, and what it can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Store
from kubewire.components.apiserver.users import SERVER, User
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
    user: User = SERVER
    warnings: list[str] = field(default_factory=list)
    #: The options of the request, such as a meta.k8s.io CreateOptions.
    options: KubeObject = field(default_factory=dict)
    #: Group, version and kind of obj and old when they are not those of served, as those of a
    #: subresource's body.
    body_kind: tuple[str, str, str] | None = None
    #: Whether the registry made up the name, which then is not part of the request.
    generated_name: bool = False
    #: A plugin asks for a second run of the chain, and sees that it is the second.
    reinvoke: bool = False
    reinvoked: bool = False
    #: What plugins keep from the first run for the second, by their names.
    memory: dict[str, Any] = field(default_factory=dict)


class Plugin:
    """One step of the chain; raises StatusError to refuse a request."""

    name: ClassVar[str]

    def __init__(self, store: Store) -> None:
        self.store = store

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        """Whether the plugin has to see such requests; asked once for each kind of request."""
        raise NotImplementedError

    def waits(self, served: Served, operation: Operation, subresource: str) -> bool:
        """Whether such a request may have to wait for another program.

        It then runs in a thread that may block.
        """
        return False

    @property
    def serial(self) -> int:
        """Grows when waits() may answer otherwise."""
        return 0

    async def close(self) -> None:
        """Ends connections to other programs."""

    def admit(self, attributes: Attributes) -> None:
        """Changes attributes.obj, or refuses it before it is validated."""

    def validate(self, attributes: Attributes) -> None:
        """Refuses attributes.obj, which is valid and changes no more."""
