"""Events as client-go's recorder writes them: a repeated event raises the count of the first one
(https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import EVENTS

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Event, EventSource, ObjectReference

log = logging.getLogger(__name__)
_REMEMBERED = 4096


def timestamp(when: datetime | None = None) -> str:
    """metav1.Time: RFC 3339 in UTC with seconds."""
    return (when or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


class EventRecorder:
    """event() returns at once; run() writes the events in order. A lost event is logged, never
    raised."""

    def __init__(self, client: Client, component: str, host: str = "") -> None:
        self._client = client
        self._source: EventSource = {"component": component}
        if host:
            self._source["host"] = host
        self._queue: asyncio.Queue[tuple[ObjectReference, str, str, str]] = asyncio.Queue()
        self._seen: OrderedDict[tuple[str, ...], tuple[str, int]] = OrderedDict()

    def event(
        self,
        obj: Mapping[str, Any],
        event_type: str,
        reason: str,
        message: str,
        *,
        field_path: str = "",
    ) -> None:
        """event_type is "Normal" or "Warning"; reason is upstream's CamelCase word."""
        metadata = obj["metadata"]
        involved = {
            "kind": obj["kind"],
            "apiVersion": obj["apiVersion"],
            "name": metadata["name"],
            "namespace": metadata.get("namespace", ""),
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
            "fieldPath": field_path,
        }
        reference: Any = {key: value for key, value in involved.items() if value}
        self._queue.put_nowait((reference, event_type, reason, message))

    async def run(self) -> None:
        while True:
            item = await self._queue.get()
            try:
                await self._write(*item)
            except ApiError as error:
                log.debug("event %s lost: %s", item[2], error)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Returns when all events so far are written."""
        await self._queue.join()

    async def _write(
        self, involved: ObjectReference, event_type: str, reason: str, message: str
    ) -> None:
        namespace = involved.get("namespace") or "default"
        key = (
            namespace,
            involved["name"],
            involved.get("uid", ""),
            involved.get("fieldPath", ""),
            event_type,
            reason,
            message,
        )
        now = timestamp()
        if key in self._seen:
            name, count = self._seen[key]
            try:
                await self._client.patch(
                    EVENTS,
                    name,
                    {"count": count + 1, "lastTimestamp": now},
                    namespace,
                )
                self._remember(key, name, count + 1)
                return
            except ApiError as error:
                if error.status != 404:
                    raise
        name = f"{involved['name']}.{time.time_ns():x}"
        event: Event = {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": event_type,
            "source": self._source,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
        }
        await self._client.create(EVENTS, event)
        self._remember(key, name, 1)

    def _remember(self, key: tuple[str, ...], name: str, count: int) -> None:
        self._seen[key] = (name, count)
        self._seen.move_to_end(key)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
