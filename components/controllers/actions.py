"""The actions that plans return, and the one place that carries them out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kubewire.components.kubeapi.client import MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.events import EventRecorder
from kubewire.components.kubeapi.mergepatch import merge_patch
from kubewire.components.kubeapi.resources import Resource

if TYPE_CHECKING:
    from kubewire.components.controllers.writes import Writes

log = logging.getLogger(__name__)
_IN_FLIGHT = 16


@dataclass(frozen=True)
class Report:
    """The events that an action emits when it succeeds or fails.

    {name} and {error} in the messages are filled in then. An empty reason means that no event is
    sent.
    """

    regarding: Mapping[str, Any]
    reason: str = ""
    message: str = ""
    failure_reason: str = ""
    failure_message: str = ""


@dataclass(frozen=True)
class Create:
    resource: Resource[Any]
    obj: Mapping[str, Any]
    report: Report | None = None


@dataclass(frozen=True)
class Update:
    """A PUT with the object's resourceVersion: the API server answers 409 if it changed
    meanwhile.
    """

    resource: Resource[Any]
    obj: Mapping[str, Any]
    subresource: str = ""


@dataclass(frozen=True)
class Patch:
    """A JSON merge patch."""

    resource: Resource[Any]
    namespace: str
    name: str
    patch: Mapping[str, Any]
    subresource: str = ""
    report: Report | None = None


@dataclass(frozen=True)
class Change:
    """A JSON merge patch that is carried out as a read and an update.

    Upstream's volume controllers update, so their ClusterRoles do not have the verb patch. A
    resourceVersion in the patch is the precondition; without one it is the version that was read.
    """

    resource: Resource[Any]
    namespace: str
    name: str
    patch: Mapping[str, Any]
    subresource: str = ""


@dataclass(frozen=True)
class Delete:
    """A deletion with the uid as precondition, so that a successor of the same name survives."""

    resource: Resource[Any]
    namespace: str
    name: str
    uid: str = ""
    report: Report | None = None
    grace_period_seconds: int | None = None
    propagation_policy: str | None = None


@dataclass(frozen=True)
class Emit:
    regarding: Mapping[str, Any]
    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class SlowStart:
    """Creates in batches of 1, 2, 4 and so on.

    A template that the API server refuses then costs one request instead of one for each replica.
    """

    creates: tuple[Create, ...]


Action = Create | Update | Patch | Change | Delete | Emit | SlowStart


@dataclass(frozen=True)
class Plan:
    """The actions in order, and the seconds after which to plan again even if nothing changes."""

    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None


@dataclass
class Applier:
    """Carries out actions for one key and records in writes what it wrote."""

    client: Client
    events: EventRecorder
    writes: Writes
    key: object
    errors: list[ApiError] = field(default_factory=list)

    async def run(self, actions: Iterable[Action]) -> None:
        """Carries out the actions in order and raises the first error.

        Consecutive deletions run concurrently.
        """
        pending: list[Delete] = []
        for action in actions:
            if isinstance(action, Delete):
                pending.append(action)
                continue
            await self._all(pending)
            pending = []
            await self._carry_out(action)
        await self._all(pending)

    async def _all(self, actions: Sequence[Create | Delete]) -> None:
        for start in range(0, len(actions), _IN_FLIGHT):
            batch = actions[start : start + _IN_FLIGHT]
            running = (self._carry_out(action) for action in batch)
            results = await asyncio.gather(*running, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _carry_out(self, action: Action) -> None:
        match action:
            case Emit():
                self.events.event(action.regarding, action.type, action.reason, action.message)
            case SlowStart():
                await self._slow_start(action.creates)
            case Create():
                await self._create(action)
            case Delete():
                await self._delete(action)
            case Update():
                written = await self.client.update(
                    action.resource,
                    action.obj,
                    subresource=action.subresource,
                )
                self.writes.written(self.key, action.resource, written)
            case Patch():
                await self._patch(action)
            case Change():
                await self._change(action)

    async def _slow_start(self, creates: Sequence[Create]) -> None:
        size = 1
        start = 0
        while start < len(creates):
            await self._all(creates[start : start + size])
            start = start + size
            size = size * 2

    async def _create(self, action: Create) -> None:
        try:
            written = await self.client.create(action.resource, action.obj)
        except ApiError as error:
            if is_namespace_terminating(error):
                return
            self._failed(action.report, action.obj["metadata"].get("name", ""), error)
            raise
        self.writes.written(self.key, action.resource, written)
        self._done(action.report, written["metadata"]["name"])

    async def _patch(self, action: Patch) -> None:
        try:
            written = await self.client.patch(
                action.resource,
                action.name,
                action.patch,
                action.namespace or None,
                subresource=action.subresource,
                content_type=MERGE_PATCH,
            )
        except ApiError as error:
            self._failed(action.report, action.name, error)
            raise
        self.writes.written(self.key, action.resource, written)
        self._done(action.report, action.name)

    async def _change(self, action: Change) -> None:
        current = await self.client.get(action.resource, action.name, action.namespace or None)
        changed = merge_patch(current, action.patch)
        written = await self.client.update(action.resource, changed, subresource=action.subresource)
        self.writes.written(self.key, action.resource, written)

    async def _delete(self, action: Delete) -> None:
        try:
            await self.client.delete(
                action.resource,
                action.name,
                action.namespace or None,
                uid=action.uid or None,
                grace_period_seconds=action.grace_period_seconds,
                propagation_policy=action.propagation_policy,
            )
        except ApiError as error:
            if error.status == 404:
                return
            self._failed(action.report, action.name, error)
            raise
        self.writes.deleted(self.key, action.resource, (action.namespace, action.name), action.uid)
        self._done(action.report, action.name)

    def _done(self, report: Report | None, name: str) -> None:
        if report and report.reason:
            self.events.event(
                report.regarding,
                "Normal",
                report.reason,
                report.message.format(name=name),
            )

    def _failed(self, report: Report | None, name: str, error: ApiError) -> None:
        if report and report.failure_reason:
            text = report.failure_message.replace("{name}", name).replace("{error}", error.message)
            self.events.event(report.regarding, "Warning", report.failure_reason, text)


def is_namespace_terminating(error: ApiError) -> bool:
    """Whether a creation failed because its namespace is being deleted.

    Such a creation can never succeed, so it is neither reported nor retried.
    """
    causes = (error.body.get("details") or {}).get("causes") or []
    return error.status == 403 and (
        any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
        or "because it is being terminated" in error.message
    )
