"""What plans return and the one place that carries it out: plan, then apply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubewire.components.kubeapi.client import MERGE_PATCH, ApiError, Client
from kubewire.components.kubeapi.events import EventRecorder
from kubewire.components.kubeapi.resources import KubeObject, Resource

if TYPE_CHECKING:
    from kubewire.components.controllers.writes import Writes

log = logging.getLogger(__name__)
_IN_FLIGHT = 16


@dataclass(frozen=True)
class Report:
    """Events about one action; {name} and {error} are filled in when it is done. An empty reason: no event."""

    regarding: KubeObject
    reason: str = ""
    message: str = ""
    failure_reason: str = ""
    failure_message: str = ""


@dataclass(frozen=True)
class Create:
    resource: Resource
    obj: KubeObject
    report: Report | None = None


@dataclass(frozen=True)
class Update:
    """PUT with the object's resourceVersion: refused (409) when somebody else was first."""

    resource: Resource
    obj: KubeObject
    subresource: str = ""


@dataclass(frozen=True)
class Patch:
    """A JSON merge patch."""

    resource: Resource
    namespace: str
    name: str
    patch: KubeObject
    subresource: str = ""
    report: Report | None = None


@dataclass(frozen=True)
class Delete:
    """uid is a precondition: never delete a successor of the same name."""

    resource: Resource
    namespace: str
    name: str
    uid: str = ""
    report: Report | None = None
    grace_period_seconds: int | None = None
    propagation_policy: str | None = None


@dataclass(frozen=True)
class Emit:
    regarding: KubeObject
    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class SlowStart:
    """Creates in batches of 1, 2, 4, ...: a template the API refuses costs one request, not a thousand."""

    creates: tuple[Create, ...]


Action = Create | Update | Patch | Delete | Emit | SlowStart


@dataclass(frozen=True)
class Plan:
    """Actions in order, and when to look again even if nothing changes."""

    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None


@dataclass
class Applier:
    """Carries actions out for one key; what it wrote is remembered in writes (read your own writes)."""

    client: Client
    events: EventRecorder
    writes: Writes
    key: object
    errors: list[ApiError] = field(default_factory=list)

    async def run(self, actions: Iterable[Action]) -> None:
        """In order. The first error of an action ends it and is raised; neighbouring deletes run at once."""
        pending: list[Delete] = []
        for action in actions:
            if isinstance(action, Delete):
                pending.append(action)
                continue
            await self._all(pending)
            pending = []
            await self._one(action)
        await self._all(pending)

    async def _all(self, actions: Sequence[Create | Delete]) -> None:
        for start in range(0, len(actions), _IN_FLIGHT):
            some = actions[start : start + _IN_FLIGHT]
            results = await asyncio.gather(*(self._one(action) for action in some), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _one(self, action: Action) -> None:
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
                written = await self.client.update(action.resource, action.obj, subresource=action.subresource)
                self.writes.written(self.key, action.resource, written)
            case Patch():
                await self._patch(action)

    async def _slow_start(self, creates: Sequence[Create]) -> None:
        size, start = 1, 0
        while start < len(creates):
            await self._all(creates[start : start + size])
            start, size = start + size, size * 2

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
            self.events.event(report.regarding, "Normal", report.reason, report.message.format(name=name))

    def _failed(self, report: Report | None, name: str, error: ApiError) -> None:
        if report and report.failure_reason:
            text = report.failure_message.replace("{name}", name).replace("{error}", error.message)
            self.events.event(report.regarding, "Warning", report.failure_reason, text)


def is_namespace_terminating(error: ApiError) -> bool:
    """Creating in a namespace that is going away cannot succeed: no reason to complain or to try again."""
    causes = (error.body.get("details") or {}).get("causes") or []
    return error.status == 403 and (
        any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
        or "because it is being terminated" in error.message
    )
