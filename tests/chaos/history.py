"""What clients of the API server have asked and seen, as data: the input of the model checker.

Times are nanoseconds of one monotonic clock. Versions are resourceVersions as numbers, which kubewire's are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Namespace and name of an object.
Key = tuple[str, str]

#: Later than everything: an operation whose outcome is unknown may take effect at any time.
NEVER = 1 << 63


@dataclass(frozen=True)
class State:
    """An object as somebody was shown it. token: unique to the write that made it; side: a label, for selections."""

    key: Key
    uid: str
    version: int
    token: str
    side: str = "in"


@dataclass(frozen=True)
class Operation:
    """A request about one object: create, update, patch, apply, delete or get.

    token: what the request would write. version, uid: its preconditions (None: it has none). outcome: ok, failed
    (reason: the Status's, the store did not change) or unknown (the connection ended first). shown: the object in the
    answer; of a delete, the uid in the answer is in deleted.
    """

    client: str
    verb: str
    key: Key
    invoked: int
    completed: int
    outcome: str
    token: str = ""
    version: int | None = None
    uid: str | None = None
    reason: str = ""
    shown: State | None = None
    deleted: str = ""


@dataclass(frozen=True)
class Listing:
    """All of a namespace ("": all of them) at one version, also when it came in several pages."""

    client: str
    namespace: str
    invoked: int
    completed: int
    version: int
    states: tuple[State, ...]


@dataclass(frozen=True)
class Event:
    """Of a watch. state.version is the event's. A BOOKMARK has only a version, the state's other fields are empty."""

    type: str
    state: State
    seen: int


@dataclass
class Watch:
    """One watch request: from after version start on, in a namespace ("": all) and a side ("": both)."""

    client: str
    namespace: str
    side: str
    start: int
    events: list[Event] = field(default_factory=list)


@dataclass
class History:
    """Everything that all clients did. Each list may be appended to from several threads."""

    operations: list[Operation] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
