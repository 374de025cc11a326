"""The ownership graph and the decision about one object.

An object names its owners in metadata.ownerReferences: a ReplicaSet owns its pods, a Deployment
its ReplicaSets. The graph has an edge from each object to each of its owners. Objects are
identified by uid, because a new object may have the name of a deleted one, and it must not inherit
the old one's dependents. The propagation policy of a deletion says what happens to the dependents
(https://kubernetes.io/docs/concepts/architecture/garbage-collection/):

- Background deletes the owner at once, and the garbage collector deletes the dependents
  afterwards.
- Foreground keeps the owner, with a deletionTimestamp and the finalizer foregroundDeletion, until
  no dependent with blockOwnerDeletion is left.
- Orphan keeps the owner with the finalizer orphan until its dependents no longer refer to it.

An object is deleted only when none of its owners is alive. An owner that the graph does not know
counts as gone only after its deletion was seen or the API server has confirmed that it does not
exist. While the state of an owner is unknown, the object stays. The functions here do no I/O: the
caller passes the states of the owners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from kubewire.components.kubeapi.resources import Resource

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import OwnerReference, PartialObjectMetadata

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True)
class Node:
    """The facts about one object that garbage collection needs."""

    resource: Resource[Any]
    namespace: str
    name: str
    uid: str
    owners: tuple[OwnerReference, ...] = ()
    deleting: bool = False
    finalizers: tuple[str, ...] = ()

    @classmethod
    def of(cls, resource: Resource[Any], obj: PartialObjectMetadata) -> Node:
        metadata = obj["metadata"]
        return cls(
            resource,
            metadata.get("namespace", ""),
            metadata["name"],
            metadata["uid"],
            tuple(metadata.get("ownerReferences") or ()),
            bool(metadata.get("deletionTimestamp")),
            tuple(metadata.get("finalizers") or ()),
        )

    @property
    def waits_for_dependents(self) -> bool:
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphans_dependents(self) -> bool:
        return self.deleting and ORPHAN in self.finalizers

    def blocks(self, owner_uid: str) -> bool:
        """Whether foreground deletion of this owner waits for the object."""
        references = (item for item in self.owners if item["uid"] == owner_uid)
        return any(item.get("blockOwnerDeletion") for item in references)


class Graph:
    """All known objects by uid, and their dependents by the owner's uid."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, set[str]] = {}

    def get(self, uid: str) -> Node | None:
        return self._nodes.get(uid)

    def put(self, node: Node) -> None:
        self.remove(node.uid)
        self._nodes[node.uid] = node
        for owner in node.owners:
            self._dependents.setdefault(owner["uid"], set()).add(node.uid)

    def remove(self, uid: str) -> Node | None:
        node = self._nodes.pop(uid, None)
        for owner in node.owners if node else ():
            siblings = self._dependents.get(owner["uid"], set())
            siblings.discard(uid)
            if not siblings:
                self._dependents.pop(owner["uid"], None)
        return node

    def dependents(self, uid: str) -> list[Node]:
        return [self._nodes[item] for item in sorted(self._dependents.get(uid, ()))]

    def of_resource(self, resource: Resource[Any]) -> list[Node]:
        return [node for node in self._nodes.values() if node.resource == resource]


class OwnerState(Enum):
    SOLID = "it exists"
    DANGLING = "it does not exist"
    WAITING = "it waits for its dependents to be deleted"
    UNKNOWN = "its kind is not served, so it cannot be looked up"


class Verdict(Enum):
    KEEP = "keep the object"
    DROP_REFERENCES = "remove references to owners that are gone or being deleted"
    DELETE = "delete the object"
    REMOVE_FINALIZER = "let it go, because no blocking dependent is left"
    WAIT = "wait for its blocking dependents"
    ORPHAN = "remove its dependents' references to it"


@dataclass(frozen=True)
class Decision:
    """drop holds the uids of owners to remove from the references.

    policy is the propagation policy of the deletion. unblock says that the object must stop to
    block its owners before.
    """

    verdict: Verdict
    drop: frozenset[str] = frozenset()
    policy: str = ""
    unblock: bool = False


def decide(
    node: Node,
    dependents: Iterable[Node],
    state_of: Callable[[OwnerReference], OwnerState],
) -> Decision:
    """Decides about one object (attemptToDeleteItem).

    It is deleted when each owner is gone or waits for its dependents.
    """
    children = list(dependents)
    if node.orphans_dependents:
        return Decision(Verdict.ORPHAN)
    if node.waits_for_dependents:
        blocking = [child for child in children if child.blocks(node.uid)]
        return Decision(Verdict.WAIT if blocking else Verdict.REMOVE_FINALIZER)
    if node.deleting or not node.owners:
        return Decision(Verdict.KEEP)
    states = {owner["uid"]: state_of(owner) for owner in node.owners}
    leaving = (OwnerState.DANGLING, OwnerState.WAITING)
    going = frozenset(uid for uid, state in states.items() if state in leaving)
    if len(going) < len(states):
        return Decision(Verdict.DROP_REFERENCES, going) if going else Decision(Verdict.KEEP)
    if OwnerState.WAITING in states.values() and children:
        # Owners and dependents that wait for each other are a circle, which would never end.
        circle = any(child.waits_for_dependents for child in children)
        return Decision(Verdict.DELETE, policy="Foreground", unblock=circle)
    return Decision(Verdict.DELETE, policy=_policy(node))


def _policy(node: Node) -> str:
    if ORPHAN in node.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in node.finalizers else "Background"
