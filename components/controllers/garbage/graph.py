"""Who owns whom, and what follows for one object. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from kubewire.components.kubeapi.resources import KubeObject, Resource

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(frozen=True)
class Node:
    """One object: what garbage collection needs of it."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    owners: tuple[KubeObject, ...] = ()
    deleting: bool = False
    finalizers: tuple[str, ...] = ()

    @classmethod
    def of(cls, resource: Resource, obj: KubeObject) -> Node:
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
        """Foreground deletion of that owner waits for this object."""
        return any(item["uid"] == owner_uid and item.get("blockOwnerDeletion") for item in self.owners)


class Graph:
    """All known objects by uid and their dependents by owner uid."""

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

    def of_resource(self, resource: Resource) -> list[Node]:
        return [node for node in self._nodes.values() if node.resource == resource]


class OwnerState(Enum):
    SOLID = "exists"
    DANGLING = "absent"
    WAITING = "waits for its dependents"
    UNKNOWN = "cannot be told"


class Verdict(Enum):
    KEEP = "keep"
    DROP_REFERENCES = "drop references to owners that are gone or going"
    DELETE = "delete"
    REMOVE_FINALIZER = "its blocking dependents are gone"
    WAIT = "wait for its blocking dependents"
    ORPHAN = "cut its dependents loose"


@dataclass(frozen=True)
class Decision:
    """drop: owner uids to cut from the references; policy: propagation policy of the deletion."""

    verdict: Verdict
    drop: frozenset[str] = frozenset()
    policy: str = ""


def decide(node: Node, dependents: Iterable[Node], state_of: Callable[[KubeObject], OwnerState]) -> Decision:
    """attemptToDeleteItem: an object goes when no owner is left, or when all that are left wait for it."""
    children = list(dependents)
    if node.orphans_dependents:
        return Decision(Verdict.ORPHAN)
    if node.waits_for_dependents:
        blocking = [child for child in children if child.blocks(node.uid)]
        return Decision(Verdict.WAIT if blocking else Verdict.REMOVE_FINALIZER)
    if node.deleting or not node.owners:
        return Decision(Verdict.KEEP)
    states = {owner["uid"]: state_of(owner) for owner in node.owners}
    going = frozenset(uid for uid, state in states.items() if state in (OwnerState.DANGLING, OwnerState.WAITING))
    if len(going) < len(states):
        return Decision(Verdict.DROP_REFERENCES, going) if going else Decision(Verdict.KEEP)
    if OwnerState.WAITING in states.values() and children:
        return Decision(Verdict.DELETE, policy="Foreground")
    return Decision(Verdict.DELETE, policy=_policy(node))


def _policy(node: Node) -> str:
    if ORPHAN in node.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in node.finalizers else "Background"
