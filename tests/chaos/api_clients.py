"""Clients of an API server that write down what they ask and what they see, until they are told to end.

They are made of http.client on purpose: it never sends a request twice, and it shares no code with kubewire's own
client. So a connection that ends is an unknown outcome, as it is for any client of a server that was killed.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubewire.components.kubeapi import kubeconfig
from tests.chaos.history import NEVER, Event, History, Key, Listing, Operation, State, Watch

NAMESPACES = ("default", "kube-public")
SIDES = ("in", "out")
#: The object whose last write ends all watches.
END = "end"
_OBJECTS = tuple((namespace, name) for namespace in NAMESPACES for name in ("a", "b", "c"))
#: A server that is killed resets its connections; this is for one that hangs.
_SOCKET_SECONDS = 30.0
#: Between two attempts to connect; the listening socket outlives the server, so that this hardly ever happens.
_RETRY_SECONDS = 0.02
_LOST = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]


class Connection:
    """One keep-alive connection to the server, opened when there is something to send."""

    def __init__(self, credentials: kubeconfig.Credentials) -> None:
        url = urllib.parse.urlsplit(credentials.server)
        assert url.hostname is not None and url.port is not None
        self._http = http.client.HTTPSConnection(
            url.hostname, url.port, timeout=_SOCKET_SECONDS, context=_context(credentials)
        )

    def send(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Answer:
        """Raises OSError or HTTPException when the connection ends before the answer does."""
        try:
            response = self.open(method, path, body, content_type)
            return Answer(response.status, json.loads(response.read()))
        except _LOST:
            self.close()
            raise

    def open(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body)
        self._http.request(method, path, data, {"Content-Type": content_type, "Accept": "application/json"})
        return self._http.getresponse()

    def close(self) -> None:
        self._http.close()


def _context(credentials: kubeconfig.Credentials) -> ssl.SSLContext:
    return credentials.ssl_context()


def path_of(namespace: str, name: str = "", **query: object) -> str:
    """Of ConfigMaps; namespace "": of all namespaces."""
    path = f"/api/v1/namespaces/{namespace}/configmaps" if namespace else "/api/v1/configmaps"
    path += f"/{name}" if name else ""
    return f"{path}?{urllib.parse.urlencode(query)}" if query else path


def state_of(item: dict[str, Any]) -> State:
    """Of a ConfigMap as JSON."""
    metadata = item["metadata"]
    return State(
        (metadata["namespace"], metadata["name"]),
        metadata["uid"],
        int(metadata["resourceVersion"]),
        item["data"]["token"],
        metadata["labels"]["side"],
    )


@dataclass
class Traffic:
    """What all clients share: the server, the history, and the objects as they were last seen by anybody.

    Who changes an object starts from what was last seen, as several controllers do: so they collide.
    """

    credentials: kubeconfig.Credentials
    history: History = field(default_factory=History)
    seen: dict[Key, State] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)
    #: Events that the server keeps, and the versions that the writers and the witness have come to.
    window: int = 1
    written: int = 0
    witnessed: int = 0

    @classmethod
    def to(cls, config: Path, window: int) -> Traffic:
        return cls(kubeconfig.load(config), window=window)

    def is_too_fast(self) -> bool:
        """Would the witness soon be so far behind that its history has expired?"""
        return self.written - self.witnessed > self.window // 2

    def connection(self) -> Connection:
        return Connection(self.credentials)


class Writer:
    """Creates, changes and deletes a few objects, and reads them in between."""

    def __init__(self, traffic: Traffic, name: str, choices: random.Random) -> None:
        self.name = name
        self._traffic, self._choices = traffic, choices
        self._connection = traffic.connection()
        self._numbers = itertools.count()
        self._stale: dict[Key, State] = {}
        self._verbs = {
            "create": self._create,
            "update": self._update,
            "merge patch": self._merge_patch,
            "JSON patch": self._json_patch,
            "apply": self._apply,
            "delete": self._delete,
            "get": self._get,
        }

    def run(self) -> None:
        while not self._traffic.stopping.is_set():
            if self._traffic.is_too_fast():
                time.sleep(_RETRY_SECONDS)
                continue
            key = self._choices.choice(_OBJECTS)
            verb = self._choices.choices(list(self._verbs), (2, 6, 2, 1, 2, 2, 3))[0]
            self._verbs[verb](key)
        self._connection.close()

    def end(self) -> None:
        """The last writes of all, one per namespace and side; every watch waits for its own."""
        for namespace, side in itertools.product(NAMESPACES, SIDES):
            self._request("create", "POST", (namespace, f"{END}-{side}"), side=side, at=path_of(namespace))
        self._connection.close()

    def _believed(self, key: Key) -> State | None:
        """What was last seen, or, as in a cache that is behind, what was seen some time ago."""
        last = self._traffic.seen.get(key)
        if last is not None and (key not in self._stale or self._choices.random() < 0.1):
            self._stale[key] = last
        return last if self._choices.random() < 0.75 else self._stale.get(key)

    def _create(self, key: Key) -> None:
        self._request("create", "POST", key, at=path_of(key[0]))

    def _update(self, key: Key) -> None:
        """Mostly with the version that was last seen, now and then without one."""
        last = self._believed(key)
        version = last.version if last is not None and self._choices.random() < 0.9 else None
        self._request("update", "PUT", key, version=version)

    def _merge_patch(self, key: Key) -> None:
        last = self._believed(key)
        version = last.version if last is not None and self._choices.random() < 0.5 else None
        kind = self._choices.choice(("merge", "strategic-merge"))
        self._request("patch", "PATCH", key, version=version, content_type=f"application/{kind}-patch+json")

    def _json_patch(self, key: Key) -> None:
        token, side = self._token(), self._side()
        operations = [
            {"op": "replace", "path": "/data/token", "value": token},
            {"op": "replace", "path": "/metadata/labels/side", "value": side},
        ]
        self._send("patch", "PATCH", key, operations, "application/json-patch+json", token=token)

    def _apply(self, key: Key) -> None:
        at = path_of(*key, fieldManager=self.name, force="true")
        self._request("apply", "PATCH", key, at=at, content_type="application/apply-patch+yaml")

    def _delete(self, key: Key) -> None:
        last = self._believed(key)
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        version, uid = None, None
        if last is not None and self._choices.random() < 0.5:
            if self._choices.random() < 0.5:
                version = last.version
                body["preconditions"] = {"resourceVersion": str(version)}
            else:
                uid = last.uid
                body["preconditions"] = {"uid": uid}
        self._send("delete", "DELETE", key, body, version=version, uid=uid)

    def _get(self, key: Key) -> None:
        self._send("get", "GET", key, None)

    def _token(self) -> str:
        return f"{self.name}-{next(self._numbers)}"

    def _side(self) -> str:
        return self._choices.choice(SIDES)

    def _request(
        self,
        verb: str,
        method: str,
        key: Key,
        *,
        at: str = "",
        version: int | None = None,
        side: str = "",
        content_type: str = "application/json",
    ) -> None:
        token = self._token()
        metadata: dict[str, Any] = {"namespace": key[0], "name": key[1], "labels": {"side": side or self._side()}}
        if version is not None:
            metadata["resourceVersion"] = str(version)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"token": token}}
        self._send(verb, method, key, body, content_type, at=at, token=token, version=version)

    def _send(
        self,
        verb: str,
        method: str,
        key: Key,
        body: object,
        content_type: str = "application/json",
        *,
        at: str = "",
        token: str = "",
        version: int | None = None,
        uid: str | None = None,
    ) -> None:
        invoked = time.monotonic_ns()
        asked = {"client": self.name, "verb": verb, "key": key, "token": token, "version": version, "uid": uid}
        try:
            answer = self._connection.send(method, at or path_of(*key), body, content_type)
        except _LOST:
            self._record(Operation(**asked, invoked=invoked, completed=NEVER, outcome="unknown"))  # type: ignore[arg-type]
            return
        result = _result(verb, answer)
        self._record(Operation(**asked, invoked=invoked, completed=time.monotonic_ns(), **result))  # type: ignore[arg-type]

    def _record(self, operation: Operation) -> None:
        self._traffic.history.operations.append(operation)
        if operation.shown is not None:
            self._traffic.seen[operation.key] = operation.shown
            self._traffic.written = max(self._traffic.written, operation.shown.version)


def _result(verb: str, answer: Answer) -> dict[str, Any]:
    if answer.status >= 300:
        # 504 and its kind say that nothing is known; a 500 is recorded as a refusal, which no cause explains.
        outcome = "unknown" if answer.status in (503, 504) else "failed"
        return {"outcome": outcome, "reason": answer.body.get("reason", f"HTTP {answer.status}")}
    if verb == "delete":
        return {"outcome": "ok", "deleted": answer.body["details"]["uid"]}
    return {"outcome": "ok", "shown": state_of(answer.body)}


class Lister:
    """Lists one namespace or all, at once or in pages."""

    def __init__(self, traffic: Traffic, name: str, choices: random.Random) -> None:
        self.name = name
        self._traffic, self._choices = traffic, choices
        self._connection = traffic.connection()

    def run(self) -> None:
        while not self._traffic.stopping.wait(self._choices.uniform(0.01, 0.1)):
            self.once(self._choices.choice(("", *NAMESPACES)), self._choices.choice((0, 0, 1, 2)))
        self._connection.close()

    def once(self, namespace: str, limit: int = 0) -> Listing | None:
        """limit: objects per page, 0 for all at once. None: the connection was lost, or the pages have expired."""
        invoked = time.monotonic_ns()
        query: dict[str, Any] = {"limit": limit} if limit else {}
        states: list[State] = []
        while True:
            try:
                answer = self._connection.send("GET", path_of(namespace, **query))
            except _LOST:
                return None
            if answer.status == 410 and "continue" in query:
                return None
            assert answer.status == 200, answer
            # Those that the server itself keeps there, such as the cluster's CA, are not the clients'.
            states += [state_of(item) for item in answer.body["items"] if "token" in item.get("data", {})]
            metadata = answer.body["metadata"]
            if not metadata.get("continue"):
                break
            query["continue"] = metadata["continue"]
        version = int(metadata["resourceVersion"])
        listing = Listing(self.name, namespace, invoked, time.monotonic_ns(), version, tuple(states))
        self._traffic.history.listings.append(listing)
        self._traffic.seen.update({state.key: state for state in states})
        return listing


class Watcher:
    """Lists once, watches on from there, and goes on from the last version when a watch ends.

    Now and then it goes back to an older version that it has seen: the history must still be there, or be said to be
    expired (410), and then it lists again. The witness never goes back, and writers do not run away from it. So what it
    has seen is every write, and the model knows of each deletion.
    """

    def __init__(
        self,
        traffic: Traffic,
        name: str,
        choices: random.Random,
        namespace: str = "",
        side: str = "",
        *,
        witness: bool = False,
    ) -> None:
        self.name = name
        self.namespace, self.side = namespace, side
        #: The last writes of the traffic that this watch selects, and that it has not yet seen.
        self.awaited = {
            (n, f"{END}-{s}") for n in NAMESPACES for s in SIDES if namespace in ("", n) and side in ("", s)
        }
        self.listed = threading.Event()
        self.expired = 0
        self._witness = witness
        self.failure = ""
        self._traffic, self._choices = traffic, choices
        self._lister = Lister(traffic, name, choices)
        self._versions: list[int] = []

    def run(self) -> None:
        """Until it has seen the end, or a time that is enough for that is over."""
        while self.awaited and not self.failure:
            if not self._versions and not self._list():
                continue
            self._watch(self._start())

    def _list(self) -> bool:
        listing = self._lister.once(self.namespace)
        if listing is None:
            time.sleep(_RETRY_SECONDS)
            return False
        self._reached(listing.version)
        self.listed.set()
        self.awaited -= {state.key for state in listing.states}
        return True

    def _reached(self, version: int) -> None:
        self._versions.append(version)
        if self._witness:
            self._traffic.witnessed = max(self._traffic.witnessed, version)

    def _start(self) -> int:
        if self._witness or self._choices.random() < 0.8:
            return self._versions[-1]
        return self._choices.choice(self._versions[-400:])

    def _watch(self, start: int) -> None:
        query: dict[str, Any] = {"watch": 1, "resourceVersion": start, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = self._choices.choice((1, 2, 60))
        if self.side:
            query["labelSelector"] = f"side={self.side}"
        watch = Watch(self.name, self.namespace, self.side, start)
        self._traffic.history.watches.append(watch)
        connection = self._traffic.connection()
        try:
            response = connection.open("GET", path_of(self.namespace, **query))
            if response.status != 200:
                self._refused(response.status, response.read().decode())
                return
            for line in response:
                if not self._take(watch, json.loads(line)):
                    return
        except (*_LOST, json.JSONDecodeError):  # a line that was cut off by a kill is no event
            time.sleep(_RETRY_SECONDS)
        finally:
            connection.close()

    def _refused(self, status: int, text: str) -> None:
        if status == 410:
            self.expired += 1
            self._versions.clear()
        else:
            self.failure = f"{self.name}: HTTP {status}: {text}"

    def _take(self, watch: Watch, line: dict[str, Any]) -> bool:
        """False: the watch is over."""
        seen = time.monotonic_ns()
        kind, item = line["type"], line["object"]
        if kind == "ERROR":
            self._refused(item["code"], json.dumps(item))
            return False
        if kind == "BOOKMARK":
            state = State(("", ""), "", int(item["metadata"]["resourceVersion"]), "", "")
        elif "token" not in item.get("data", {}):
            return True
        else:
            state = state_of(item)
        watch.events.append(Event(kind, state, seen))
        self._reached(state.version)
        self.awaited.discard(state.key)
        return bool(self.awaited)


def crew(
    traffic: Traffic, choices: Iterator[random.Random], writers: int
) -> tuple[list[Writer], list[Lister], list[Watcher]]:
    """Writers, listers, and watchers of everything, of one namespace, and of a selection."""
    selections = (("", ""), (NAMESPACES[0], ""), ("", "in"), (NAMESPACES[1], "out"))
    return (
        [Writer(traffic, f"writer-{number}", next(choices)) for number in range(writers)],
        [Lister(traffic, f"lister-{number}", next(choices)) for number in range(2)],
        [Watcher(traffic, f"watcher-{n}", next(choices), *what) for n, what in enumerate(selections)],
    )
