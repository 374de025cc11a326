"""The life of a pod on this node: one task per pod, which goes through the stages of this table.

stage       what it does                                      next stage
SYNC        plans and acts until nothing is left to do        TERMINATE: deleted, done or overdue
TERMINATE   preStop, SIGTERM, grace period, SIGKILL           CLEAN_UP
CLEAN_UP    CNI DEL, volumes, tokens                          FINISHED
FINISHED    last status, then deletes the pod in the API      GONE: the pod's object is gone

One task per pod means that a pod's steps never run at the same time, so they need no locks, and a
pod that is slow or fails does not delay the others. Events (the pod has changed, a process has
ended, a probe has a new result) do not act themselves. They update the state and wake the task,
which plans again (plan.py).

A pod only moves forward through the stages: from TERMINATE on, no container is ever started again.
A pod that ended by itself, for example a Job's, stays FINISHED until it is deleted, and keeps its
logs and exit codes until then.

The order of the stages is the contract with the rest of the cluster. The API object may only be
deleted after all processes have ended and the address has been freed, because a StatefulSet creates
the successor of the same name as soon as the object is gone, and its predecessor must not run then.
So the kubelet, not the API server, removes a pod that was deleted gracefully: it sends the DELETE
with a grace period of 0 when it has finished
(https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination).

A deletion interrupts a step of SYNC, which may be waiting for a volume's objects or a hook. Work
that makes processes or attachments is shielded (_whole()): it runs to its end, because the state
must contain all that it has made. TERMINATE and CLEAN_UP wait for it (_settled()).

The status is computed from the state after each step and sent if it has changed (status/).
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

from kubewire.components.base.retrying import GrowingDelay
from kubewire.components.kubeapi.client import ApiError
from kubewire.components.kubeapi.resources import PODS
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.node.object import network_not_ready
from kubewire.components.kubelet.pod.containers import PodContainers, SandboxError
from kubewire.components.kubelet.pod.files import PodFiles
from kubewire.components.kubelet.pod.network import SandboxNetworkError
from kubewire.components.kubelet.pod.node_services import NodeServices
from kubewire.components.kubelet.pod.plan import Actions, Kill, deadline, plan
from kubewire.components.kubelet.pod.state import PodState
from kubewire.components.kubelet.pod.termination import termination_order
from kubewire.components.kubelet.probes.worker import Prober, Report
from kubewire.components.kubelet.records import ContainerRecord, ProbeView
from kubewire.components.kubelet.status.conditions import OWNED
from kubewire.components.kubelet.status.generate import Override, pod_status
from kubewire.components.kubelet.volumes.payload import MountProblem
from kubewire.components.kubelet.volumes.setup import tear_down
from kubewire.components.runtime.api import Process, RuntimeApiError

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Pod, PodStatus

log = logging.getLogger(__name__)
T = TypeVar("T")

_RETRY_FIRST = 0.5
_RETRY_LAST = 10.0


class Stage(Enum):
    """The stages of a pod's life; see the module's docstring."""

    SYNC = auto()
    TERMINATE = auto()
    CLEAN_UP = auto()
    FINISHED = auto()
    GONE = auto()


class PodWorker:
    """run() is the task of the pod; update(), ended() and wake() may be called at any time."""

    def __init__(self, node: NodeServices, state: PodState) -> None:
        self.node = node
        self.state = state
        self.stage = Stage.TERMINATE if pods.is_terminal(state.pod) else Stage.SYNC
        self.files = PodFiles(node, state.uid)
        self.containers = PodContainers(node, state, self.files)
        self.prober = Prober(
            node.session,
            lambda: (self.containers.pod_ips() or ("",))[0],
            self.containers.execute,
            self._verdict_changed,
            self._report,
            node.metrics.probed,
        )
        self._seen_at = time.time()
        self._wake = asyncio.Event()
        self._step: asyncio.Task[float | None] | None = None
        self._critical: set[asyncio.Task[Any]] = set()
        self._deleted = False
        #: Whether the node has taken the pod; a pod with processes has been taken before.
        self.admitted = state.record.sandbox is not None
        self._override: Override | None = None
        self._stopped = asyncio.Event()
        self._retry = GrowingDelay(_RETRY_FIRST, _RETRY_LAST)
        self._was_running = False

    @property
    def gone(self) -> bool:
        return self.stage is Stage.GONE

    @property
    def finished(self) -> bool:
        return self.stage in (Stage.FINISHED, Stage.GONE)

    @property
    def busy(self) -> bool:
        """Whether a step is running."""
        return self._step is not None

    def update(self, pod: Pod, *, deleted: bool = False) -> None:
        """Takes the pod's new definition. deleted: its object or manifest is gone."""
        self.state.pod = pod
        self._deleted = self._deleted or deleted
        if self._must_end() and self.stage is Stage.SYNC and self._step is not None:
            self._step.cancel()
        self._wake.set()

    @property
    def pod(self) -> Pod:
        return self.state.pod

    async def preempt(self, why: Override) -> None:
        """Ends the pod for another one; returns when its containers have ended.

        As upstream it waits one and a half grace periods, and at least ten seconds.
        """
        self.containers.event("Warning", why.reason, why.message)
        self._override = why
        self.update(self.state.pod)
        limit = max(10.0, 1.5 * pods.grace_period(self.state.pod))
        try:
            async with asyncio.timeout(limit):
                await self._stopped.wait()
        except TimeoutError:
            name = pods.full_name(self.state.pod)
            log.warning("pod %s has not ended %g s after its preemption", name, limit)

    def ended(self, process: Process) -> None:
        """Takes the runtime's report that a process of this pod has ended."""
        self.containers.ended(process)
        self._stop_probes_of_ended()
        if self._step is not None:
            self.publish()
        self._wake.set()

    def wake(self) -> None:
        """Makes the task plan again soon."""
        self._wake.set()

    def _verdict_changed(self) -> None:
        self.publish()
        self._wake.set()

    def _report(self, report: Report) -> None:
        self.containers.event("Warning", report.reason, report.message, report.container)

    async def run(self) -> None:
        """Goes through the stages until the pod is gone."""
        for record in self.state.record.running():
            container = pods.container(self.state.pod, record.name)
            if container is not None and self.stage is Stage.SYNC:
                self.prober.start(container, record, time.time())
        while (stage := self.stage) is not Stage.GONE:
            self._wake.clear()
            delay = await self._take_step()
            if not self.gone:
                self.publish()
            if self.stage is stage:
                await self._rest(delay)
        self.prober.stop_all()

    async def _take_step(self) -> float | None:
        steps: dict[Stage, Callable[[], Coroutine[Any, Any, float | None]]] = {
            Stage.SYNC: self._sync,
            Stage.TERMINATE: self._terminate,
            Stage.CLEAN_UP: self._clean_up,
            Stage.FINISHED: self._finish,
        }
        self._step = asyncio.create_task(steps[self.stage]())
        try:
            await asyncio.wait({self._step})
            if self._step.cancelled():
                return 0.0
            return self._step.result()
        except (RuntimeApiError, ApiError, OSError) as error:
            log.warning("pod %s: %s", pods.full_name(self.state.pod), error)
            return self._retry.take()
        except Exception:  # the step is retried, and other pods are not affected
            log.exception("pod %s: %s failed", pods.full_name(self.state.pod), self.stage.name)
            return self._retry.take()
        finally:
            self._step.cancel()
            self._step = None

    async def _rest(self, delay: float | None) -> None:
        longest = self.node.settings.sync_frequency
        try:
            async with asyncio.timeout(longest if delay is None else min(delay, longest)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _whole(self, work: Awaitable[T]) -> T:
        """Awaits work that must run to its end even if the step is cancelled meanwhile."""
        task = asyncio.ensure_future(work)
        self._critical.add(task)
        task.add_done_callback(self._critical.discard)
        return await asyncio.shield(task)

    def _must_end(self) -> bool:
        deleted = self._deleted or pods.deletion_requested(self.state.pod)
        return deleted or self._override is not None

    async def _sync(self) -> float | None:
        due = self._check_deadline()
        if self._must_end() or pods.is_terminal(self.state.pod):
            self.stage = Stage.TERMINATE
            return 0.0
        if not self.admitted and not await self._admit():
            self.stage = Stage.TERMINATE
            return 0.0
        needs_network = not pods.host_network(self.state.pod) and not self.state.record.sandbox
        if needs_network and (problem := self.node.network.problem()):
            text = f"network is not ready: {network_not_ready(problem)}"
            self.containers.event("Warning", "NetworkNotReady", text)
            return self._retry.take()
        await self.node.services_ready.wait()
        try:
            await self.files.prepare(self.state.pod, self.containers.pod_ips())
        except MountProblem as problem:
            self.containers.event("Warning", "FailedMount", str(problem))
            return self._retry.take()
        retry_at = await self._act()
        if self.stage is not Stage.SYNC:
            return 0.0
        renewal = self.node.tokens.renew_at(self.state.uid)
        times = [moment for moment in (retry_at, due, renewal) if moment is not None]
        return max(min(times) - time.time(), 0.01) if times else None

    async def _admit(self) -> bool:
        """Asks whether the node can take the pod. A pod that is rejected fails."""
        rejection = await self.node.admit(self.state.pod)
        self.admitted = rejection is None
        if rejection is not None:
            self.containers.event("Warning", rejection.reason, rejection.message)
            self._override = Override(rejection.reason, f"Pod was rejected: {rejection.message}")
        return self.admitted

    def _check_deadline(self) -> float | None:
        """Ends the pod if it is past its deadline; returns the deadline."""
        due = deadline(self.state.pod, self._last_status())
        if due.at is not None and time.time() >= due.at and not self._override:
            self._override = Override(due.reason, due.message)
            self.containers.event("Normal", "DeadlineExceeded", due.message)
        return due.at

    async def _act(self) -> float | None:
        """Plans and acts until all that is left has to wait; returns until when, or None."""
        waiting: dict[str, float] = {}
        while True:
            actions = plan(self.state.pod, self.state.record, self.prober.view())
            if actions.finished:
                self.stage = Stage.TERMINATE
                return None
            if actions.create_sandbox:
                retry_at = await self._new_sandbox(actions)
                if retry_at is not None:
                    return retry_at
                continue
            for kill in actions.kill:
                await self._kill(kill)
            todo = [name for name in actions.start if name not in waiting]
            if not todo and not actions.kill:
                return min(waiting.values(), default=None)
            for name in todo:
                if (until := await self._start(name)) is not None:
                    waiting[name] = until

    async def _new_sandbox(self, actions: Actions) -> float | None:
        """Makes a sandbox. Returns None, or when to try again (seconds since 1970)."""
        before = self.state.record.sandbox
        if actions.kill_pod and before is not None:
            text = "Pod sandbox changed, it will be killed and re-created."
            self.containers.event("Normal", "SandboxChanged", text)
            await self._stop_all(lambda: float(pods.grace_period(self.state.pod)))
            await self._whole(self.containers.stop_sandbox())
        try:
            async with self.node.start_slots:
                await self._whole(
                    self.containers.create_sandbox(before.attempt + 1 if before else 0),
                )
        except SandboxError as error:
            text = f"Failed to create pod sandbox: {error}"
            self.containers.event("Warning", "FailedCreatePodSandBox", text)
            return time.time() + self._retry.take()
        self._retry.reset()
        # Volumes may contain the pod's address (downward API), which is known only now.
        await self.files.prepare(self.state.pod, self.containers.pod_ips())
        return None

    async def _start(self, name: str) -> float | None:
        """Starts a container. Returns None, or when to try again (seconds since 1970)."""
        ready_at = self.containers.back_off(name, time.time())
        if ready_at > time.time():
            return ready_at
        async with self.node.start_slots:
            retry_at = await self._whole(self.containers.start(name))
        if retry_at is not None:
            return retry_at
        self._begin_probes(name)
        self.publish()
        await self.containers.post_start(name)
        return None

    def _begin_probes(self, name: str) -> None:
        record = self.state.record.current.get(name)
        container = pods.container(self.state.pod, name)
        if record is not None and record.running and container is not None:
            self.prober.start(container, record, time.time())

    async def _kill(self, kill: Kill) -> None:
        record = self.state.record.current.get(kill.name)
        if record is None or not record.running:
            return
        container = pods.container(self.state.pod, kill.name)
        probe = pods.probes(container).get(kill.probe) if container is not None else None
        own = probe.get("terminationGracePeriodSeconds") if probe is not None else None
        grace = float(pods.grace_period(self.state.pod) if own is None else own)
        await self.containers.stop(record, kill.message, lambda: grace)
        self._stop_probes_of_ended()

    async def _settled(self) -> None:
        """Waits until shielded work of a cancelled step has ended."""
        while self._critical:
            await asyncio.wait(set(self._critical))

    def _grace(self) -> float:
        return float(max(pods.grace_period(self.state.pod), 1))

    async def _terminate(self) -> float | None:
        await self._settled()
        self.prober.stop_killing()
        self.publish()
        await self._stop_all(self._grace)
        self._stopped.set()
        self.stage = Stage.CLEAN_UP
        return 0.0

    async def _stop_all(self, grace: Callable[[], float]) -> None:
        """Ends all containers, group by group; all groups share one grace period."""
        begun = time.monotonic()
        for group in termination_order(self.state.pod, self.state.record.running()):
            spent = time.monotonic() - begun

            def left(spent: float = spent) -> float:
                return max(grace() - spent, 0.0)

            await asyncio.gather(*(self.containers.stop(record, "", left) for record in group))
            self._stop_probes_of_ended()

    async def _clean_up(self) -> float | None:
        await self._settled()
        self.prober.stop_all()
        try:
            await self.containers.stop_sandbox()
        except SandboxNetworkError as error:
            why = f'"rpc error: code = Unknown desc = {error}"'
            failed = f'failed to "KillPodSandbox" for "{self.state.uid}"'
            text = f"{failed} with KillPodSandboxError: {why}"
            self.containers.event("Warning", "FailedKillPod", f"error killing pod: {text}")
            return self._retry.take()
        tear_down(self.state.uid, self.node.directories)
        self.node.objects.release(self.state.uid)
        self.node.tokens.forget(self.state.uid)
        self.node.images.forget(self.state.uid)
        self.stage = Stage.FINISHED
        return 0.0

    async def _finish(self) -> float | None:
        self.publish()
        await self.node.status.flush(self.state.uid)
        if self._deleted:
            await self._forget()
            return 0.0
        pod = self.state.pod
        if pods.deletion_requested(pod) and not pods.is_static(pod):
            try:
                await self.node.client.delete(
                    PODS,
                    pods.name(pod),
                    pods.namespace(pod),
                    grace_period_seconds=0,
                    uid=self.state.uid,
                )
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
                self._deleted = True
                return 0.05
        return None

    async def _forget(self) -> None:
        await self.containers.forget_processes()
        shutil.rmtree(self.node.directories.pod_logs(self.state.pod), ignore_errors=True)
        pattern = f"{pods.full_name(self.state.pod)}_*"
        for link in self.node.directories.log_links.glob(pattern):
            link.unlink(missing_ok=True)
        self.node.status.forget(self.state.uid)
        self.stage = Stage.GONE

    def _stop_probes_of_ended(self) -> None:
        for name, record in self.state.record.current.items():
            if not record.running:
                self.prober.stop(name)

    def probes(self) -> ProbeView:
        return self.prober.view()

    def running(self) -> list[ContainerRecord]:
        return self.state.record.running()

    def _last_status(self) -> PodStatus:
        return self.node.status.get(self.state.uid) or self.state.pod.get("status") or {}

    def publish(self) -> None:
        """Computes the pod's status and hands it to the writer.

        The basis is the last status that this kubelet computed, which the API may not have yet;
        only conditions that belong to others (readiness gates) are taken from the API.
        """
        pod = self.state.pod
        last = self._last_status()
        api = pod.get("status") or {}
        api_conditions = api.get("conditions") or []
        owned = [item for item in last.get("conditions") or [] if item["type"] in OWNED]
        foreign = [item for item in api_conditions if item["type"] not in OWNED]
        scheduled = [item for item in api_conditions if item["type"] == "PodScheduled"]
        base: Pod = {
            **pod,
            "status": {**api, **last, "conditions": [*(owned or scheduled), *foreign]},
        }
        if not self.state.record.current and pods.is_terminal(pod):
            # The pod finished under an earlier kubelet and left no process, so only the API still
            # knows its status.
            return
        status = pod_status(
            base,
            self.state.record,
            self.prober.view(),
            self.node.facts.host_ips,
            time.time(),
            terminal=self.stage in (Stage.CLEAN_UP, Stage.FINISHED),
            override=self._override,
        )
        if status["phase"] == "Running" and not self._was_running:
            self._was_running = True
            self.node.metrics.start.observe(time.time() - self._seen_at)
        self.node.status.set(pod, status)
