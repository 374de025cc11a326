"""Starts and stops a pod's sandbox and containers, and records the results in its state.

The pod worker decides what to do (plan.py); this module does it and translates every failure into
the events and waiting reasons that upstream's kubelet reports.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.base.golang import format_duration
from kubewire.components.kubelet import pods
from kubewire.components.kubelet.backoff import Backoff
from kubewire.components.kubelet.images.catalogue import Image, UnknownImage
from kubewire.components.kubelet.logs import last_output
from kubewire.components.kubelet.pod import hooks, hostsfile, launch
from kubewire.components.kubelet.pod.environment import EnvironmentProblem, environment
from kubewire.components.kubelet.pod.expansion import expand_all
from kubewire.components.kubelet.pod.files import PodFiles
from kubewire.components.kubelet.pod.launch import TERMINAL, Launch, LaunchError
from kubewire.components.kubelet.pod.network import SandboxNetworkError, in_order
from kubewire.components.kubelet.pod.node_services import NodeServices
from kubewire.components.kubelet.pod.plan import spec_hash
from kubewire.components.kubelet.pod.state import PodState
from kubewire.components.kubelet.pod.termination import Grace, stop_container
from kubewire.components.kubelet.probes.actions import Exec
from kubewire.components.kubelet.records import ContainerRecord, SandboxRecord, Waiting
from kubewire.components.kubelet.volumes.payload import MountProblem
from kubewire.components.runtime.api import Process, ProcessSpec, RuntimeApiError, StartError

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, LifecycleHandler

log = logging.getLogger(__name__)

#: Seconds between the end of a container and its restart. Upstream notices the end only when it
#: next lists the runtime's containers (PLEG, once a second). `kubectl run -it` depends on that
#: delay: it reads the log of the run that has just ended.
RELIST_SECONDS = 1.0

#: The longest termination message that is reported, in bytes (upstream's limit for a container).
MAX_MESSAGE = 4096


class SandboxError(Exception):
    """The sandbox could not be made; the text follows "Failed to create pod sandbox: "."""


class PodContainers:
    """The sandbox and the containers of a pod; every method updates the pod's state as it acts."""

    def __init__(self, node: NodeServices, state: PodState, files: PodFiles) -> None:
        self._node = node
        self._state = state
        self._files = files
        # A short process may end before the answer to spawn() has told its id. Its end is kept here
        # until then (see _settle()).
        self._ended_unknown: dict[str, Process] = {}

    def pod_ips(self) -> tuple[str, ...]:
        if pods.host_network(self._state.pod):
            return self._node.facts.host_ips
        return self._state.record.ips

    def event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """Records an event about the pod, or about one of its containers."""
        path = ""
        if container:
            pod = self._state.pod
            section = "containers"
            if any(item["name"] == container for item in pods.ephemeral_containers(pod)):
                section = "ephemeralContainers"
            if any(item["name"] == container for item in pods.init_containers(pod)):
                section = "initContainers"
            path = f"spec.{section}{{{container}}}"
        self._node.recorder.event(self._state.pod, kind, reason, message, field_path=path)

    async def create_sandbox(self, attempt: int) -> None:
        """Makes the network namespace, runs CNI ADD and starts pause.

        Raises SandboxError, after removing what it has made.
        """
        node = self._node
        pod = self._state.pod
        sandbox_id = f"{uuid.uuid4().hex}{uuid.uuid4().hex}"
        netns: Path | None = None
        ips: tuple[str, ...] = ()
        try:
            settings = node.settings
            hostname = hostsfile.kernel_hostname(
                pod,
                settings.node_name,
                settings.cluster_domain,
            )
            if not pods.host_network(pod):
                netns, given = await node.network.attach(pod, sandbox_id)
                ips = in_order(given, node.facts.host_ips)
            spec = launch.pause_spec(
                pod,
                settings.node_name,
                node.pid,
                sandbox_id,
                attempt,
                str(netns or ""),
                ips,
                hostname,
            )
            process = await self._spawn(spec, "run_podsandbox")
        except (SandboxNetworkError, hostsfile.HostnameError) as error:
            raise SandboxError(f"rpc error: code = Unknown desc = {error}") from error
        except (RuntimeApiError, OSError) as error:
            if netns:
                await self._give_back(sandbox_id, netns)
            text = f'failed to start sandbox "{sandbox_id}": {error}'
            raise SandboxError(f"rpc error: code = Unknown desc = {text}") from error
        sandbox = SandboxRecord(
            sandbox_id,
            attempt,
            str(netns or ""),
            ips,
            process.started_at or time.time(),
            process.pid,
        )
        self._state.set_sandbox(sandbox, process.id)
        self._settle(process)

    def _settle(self, process: Process) -> None:
        """Handles the end of a process that was reported before its start was known."""
        early = self._ended_unknown.pop(process.id, None)
        self._ended_unknown.clear()
        if early is not None:
            self.ended(early)

    async def _spawn(self, spec: ProcessSpec, operation: str) -> Process:
        self._node.metrics.operations.inc(operation)
        try:
            return await self._node.runtime.spawn(spec)
        except (RuntimeApiError, OSError):
            self._node.metrics.operation_errors.inc(operation)
            raise

    async def _give_back(self, sandbox_id: str, netns: Path) -> None:
        try:
            await self._node.network.detach(sandbox_id, netns)
        except SandboxNetworkError as error:
            log.warning("%s", error)

    async def stop_sandbox(self) -> None:
        """Runs CNI DEL, unpins the namespace and kills pause.

        Raises SandboxNetworkError if DEL fails; the caller retries.
        """
        sandbox = self._state.record.sandbox
        if sandbox is None:
            return
        if sandbox.netns:
            await self._node.network.detach(sandbox.id, Path(sandbox.netns))
        if process_id := self._state.pauses.pop(sandbox.id, ""):
            await self._remove(process_id)
        self._state.set_sandbox(None)

    async def _remove(self, process_id: str) -> None:
        try:
            await self._node.runtime.remove(process_id, force=True)
        except RuntimeApiError as error:
            log.debug("removing %s: %s", process_id, error)

    def back_off(self, name: str, now: float) -> float:
        """When this container may start; records CrashLoopBackOff if that is later than now."""
        current = self._state.record.current.get(name)
        if current is None or current.running:
            return now
        policy = self._node.settings.backoff
        backoff = self._state.backoffs.get(name, Backoff())
        ready_at = backoff.ready_at(policy, current.finished_at)
        noticed = current.finished_at + RELIST_SECONDS
        if now < noticed and ready_at <= noticed:
            return noticed
        if now < ready_at and not (current.succeeded and self._is_regular_init(name)):
            pod = f"{pods.full_name(self._state.pod)}({self._state.uid})"
            delay = format_duration(backoff.delay)
            text = f"back-off {delay} restarting failed container={name} pod={pod}"
            event = f"Back-off restarting failed container {name} in pod {pod}"
            self.event("Warning", "BackOff", event, name)
            self._state.set_waiting(name, Waiting("CrashLoopBackOff", text))
            return ready_at
        self._state.backoffs[name] = backoff.raised(policy, now)
        return now

    def _is_regular_init(self, name: str) -> bool:
        items = pods.init_containers(self._state.pod)
        return any(item["name"] == name and not pods.is_sidecar(item) for item in items)

    async def start(self, name: str) -> float | None:
        """Starts a container. Returns None, or when to try again (seconds since 1970)."""
        pod = self._state.pod
        now = time.time()
        container = pods.container(pod, name)
        assert container is not None, name
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        image = container.get("image") or ""
        pulled = self._node.images.pull(self._state.uid, image, policy, now)
        for kind, reason, message in pulled.events:
            self.event(kind, reason, message, name)
        if pulled.image is None:
            self._state.set_waiting(name, pulled.waiting)
            return pulled.retry_at
        try:
            spec = self._spec(container, pulled.image)
        except (EnvironmentProblem, LaunchError, MountProblem, UnknownImage, OSError) as error:
            self._state.set_waiting(name, Waiting("CreateContainerConfigError", str(error)))
            self.event("Warning", "Failed", f"Error: {error}", name)
            return now + 10
        self.event("Normal", "Created", "Container created", name)
        await self._run(container, spec)
        return None

    def _spec(self, container: Container, image: Image) -> ProcessSpec:
        node = self._node
        state = self._state
        pod = self._state.pod
        sandbox = state.record.sandbox
        assert sandbox is not None, "a container is started in a sandbox"
        ips = self.pod_ips()
        env = environment(pod, container, self._files.environment_sources(pod, ips))
        before = state.record.current.get(container["name"])
        attempt = before.attempt + 1 if before else 0
        log_path = node.directories.container_log(pod, container["name"], attempt)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        terminal = TERMINAL if container.get("tty") else {}
        hostname = hostsfile.hostname(pod, node.settings.node_name)
        whole_env = {**terminal, **image.env, "HOSTNAME": hostname, **env}
        # $(NAME) refers to the pod's variables only, not to those of the image and the runtime.
        command = expand_all(container.get("command"), env)
        args = expand_all(container.get("args"), env)
        program = node.images.program(container["image"], command, args)
        volumes = self._files.mounts(pod, container, ips, env, attempt)
        wanted = Launch(
            node.settings.node_name,
            node.pid,
            sandbox,
            program,
            node.images.catalogue.image_id(container["image"]),
            whole_env,
            (*launch.tool_mounts(program), *volumes),
            str(log_path),
            attempt,
            spec_hash(container),
            node.settings.container_log_max_size,
            node.settings.container_log_max_files,
            self._target_pid(container["name"]),
        )
        return launch.container_spec(pod, container, wanted)

    def _target_pid(self, name: str) -> int:
        added = next(
            (item for item in pods.ephemeral_containers(self._state.pod) if item["name"] == name),
            None,
        )
        wanted = added.get("targetContainerName") if added is not None else None
        target = self._state.record.current.get(wanted or "")
        return target.pid if target and target.running else 0

    async def _run(self, container: Container, spec: ProcessSpec) -> None:
        name = container["name"]
        now = time.time()
        try:
            process = await self._spawn(spec, "start_container")
        except (StartError, OSError) as error:
            create_failed = "failed to create containerd task: failed to create shim task"
            text = f"{create_failed}: OCI runtime create failed: {error}"
            process = Process(uuid.uuid4().hex, 0, labels=spec.labels, started_at=now)
            failed = replace(
                launch.container_record(process),
                exit_code=128,
                finished_at=now,
                reason="StartError",
                message=text,
            )
            self._state.started(failed)
            self.event("Warning", "Failed", f"Error: {text}", name)
            return
        record = launch.container_record(process)
        if record.attempt:
            self._node.metrics.restarts.inc()
        self._state.started(record)
        self._link_log(record, spec.log_path)
        self.event("Normal", "Started", "Container started", name)
        self._settle(process)
        for old in self._state.forgettable(name):
            await self._remove(old)
        self._forget_files(name, record.attempt)

    def _link_log(self, record: ContainerRecord, log_path: str) -> None:
        link = self._node.directories.log_link(self._state.pod, record.name, record.id)
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(log_path)
        except OSError as error:
            log.debug("%s: %s", link, error)

    def _forget_files(self, name: str, attempt: int) -> None:
        """Removes the log and the termination message of the run before the previous one."""
        directories = self._node.directories
        pod = self._state.pod
        old = attempt - 2
        if old >= 0:
            folder = directories.container_log(pod, name, old).parent
            for path in folder.glob(f"{old}.log*"):
                path.unlink(missing_ok=True)
            message = directories.termination_message(self._state.uid, name, old)
            message.unlink(missing_ok=True)

    async def post_start(self, name: str) -> None:
        """Runs the postStart hook; a container whose hook fails is killed, and may be restarted."""
        container = pods.container(self._state.pod, name)
        record = self._state.record.current.get(name)
        if container is None or record is None or not record.running:
            return
        handler = (container.get("lifecycle") or {}).get("postStart")
        if not handler:
            return
        try:
            ip = (self.pod_ips() or ("",))[0]
            session = self._node.session()
            await hooks.run(handler, container, ip, session, self.execute(record), 3600.0)
        except hooks.HookError as error:
            self.event("Warning", "FailedPostStartHook", f"PostStartHook failed: {error}", name)
            await self.stop(record, "FailedPostStartHook", self._pod_grace)

    def _pod_grace(self) -> float:
        return float(pods.grace_period(self._state.pod))

    async def stop(self, record: ContainerRecord, message: str, grace: Grace) -> None:
        """Ends a container: preStop, SIGTERM, SIGKILL. The record is up to date afterwards."""
        container: Container = pods.container(self._state.pod, record.name) or {"name": record.name}
        self.event("Normal", "Killing", message or f"Stopping container {record.name}", record.name)
        handler = (container.get("lifecycle") or {}).get("preStop")
        pre_stop = self._pre_stop(handler, container, record) if handler else None
        await stop_container(record, self._node.runtime, grace, pre_stop)
        await self.refresh(record)

    def _pre_stop(
        self,
        handler: LifecycleHandler,
        container: Container,
        record: ContainerRecord,
    ) -> Callable[[float], Awaitable[None]]:
        async def run(timeout: float) -> None:
            try:
                ip = (self.pod_ips() or ("",))[0]
                session = self._node.session()
                await hooks.run(handler, container, ip, session, self.execute(record), timeout)
            except hooks.HookError as error:
                text = f"PreStopHook failed: {error}"
                self.event("Warning", "FailedPreStopHook", text, record.name)

        return run

    async def refresh(self, record: ContainerRecord) -> None:
        """Asks the runtime how a container ended, instead of waiting for its event."""
        try:
            process = await self._node.runtime.get(record.id)
        except RuntimeApiError:
            lost = replace(
                record,
                exit_code=137,
                signal=9,
                finished_at=time.time(),
                reason="ContainerStatusUnknown",
            )
            self._state.ended(lost)
            return
        if not process.running:
            self.ended(process)

    def ended(self, process: Process) -> None:
        """Records that the process of a container or of pause has ended."""
        if launch.is_sandbox(process):
            sandbox = self._state.record.sandbox
            if sandbox and self._state.pauses.get(sandbox.id) == process.id:
                self._state.sandbox_ended()
            else:
                self._ended_unknown[process.id] = process
            return
        record = launch.container_record(process)
        known = self._state.record.current.get(record.name)
        if known is None or known.id != record.id:
            self._ended_unknown[process.id] = process
            return
        self._state.ended(replace(record, message=self._message(record)))

    def learn_message(self, process: Process) -> None:
        """Records the termination message of a container that ended while no kubelet ran."""
        record = launch.container_record(process)
        known = self._state.record.current.get(record.name)
        if known is not None and known.id == record.id:
            changed = replace(known, message=self._message(record))
            current = {**self._state.record.current, record.name: changed}
            self._state.record = replace(self._state.record, current=current)

    def _message(self, record: ContainerRecord) -> str:
        """The content of terminationMessagePath, or if its policy says so the end of the log."""
        container = pods.container(self._state.pod, record.name)
        directories = self._node.directories
        path = directories.termination_message(self._state.uid, record.name, record.attempt)
        try:
            with path.open("rb") as file:
                text = file.read(MAX_MESSAGE).decode(errors="replace")
        except OSError:
            text = ""
        policy = container.get("terminationMessagePolicy") if container is not None else None
        wants_log = policy == "FallbackToLogsOnError"
        if not text and wants_log and not record.succeeded:
            log_path = directories.container_log(self._state.pod, record.name, record.attempt)
            return last_output(log_path)
        return text

    def execute(self, record: ContainerRecord) -> Exec:
        """The function by which exec probes and hooks run a command in a container."""

        async def run(argv: list[str], timeout: float) -> tuple[int, bytes]:
            try:
                program = self._node.images.program(record.image, argv)
                spec = launch.exec_spec(program, record.id)
                done = await self._node.runtime.run(spec, timeout=timeout, limit=16 * 1024)
            except (RuntimeApiError, LookupError) as error:
                text = f"failed to exec in container: {error}"
                raise OSError(f"rpc error: code = Unknown desc = {text}") from error
            return done.exit.shell_code, done.stdout + done.stderr

        return run

    async def forget_processes(self) -> None:
        """Makes the runtime forget all processes of this pod."""
        for ids in self._state.kept.values():
            await asyncio.gather(*(self._remove(process_id) for process_id in ids))
        self._state.kept.clear()
