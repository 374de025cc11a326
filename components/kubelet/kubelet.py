"""The kubelet as a whole: it watches the pods of its node and runs one worker per pod.

What should run comes from three sources: the pods' informer (all pods with this spec.nodeName),
the folder of static pods, and, at the start, the processes that an earlier kubelet left running.
Pods are not the kubelet's children but the fork server's, so they outlive the kubelet; a new
kubelet lists them, adopts those whose pods still exist and ends the rest. It may not end any
before the informer has synced, because until then every pod is unknown.

Two streams report what happens: the fork server's of processes that have ended, and inotify's of
changes to the CNI configuration. Both only update state and wake workers. A worker always compares
all it knows with all that is wanted (pod/worker.py), so a late event can only delay a pod.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from kubewire.components.kernel import inotify
from kubewire.components.kubeapi.client import Client
from kubewire.components.kubeapi.events import EventRecorder
from kubewire.components.kubeapi.fields import only
from kubewire.components.kubeapi.informer import Informer
from kubewire.components.kubeapi.resources import PODS, SERVICES
from kubewire.components.kubelet import firewall, pods
from kubewire.components.kubelet.configuration import Settings
from kubewire.components.kubelet.downward import NodeFacts
from kubewire.components.kubelet.images.catalogue import Catalogue
from kubewire.components.kubelet.images.pulls import ImagePuller
from kubewire.components.kubelet.metrics import Metrics
from kubewire.components.kubelet.node.object import KUBELET_VERSION, capacity, measure
from kubewire.components.kubelet.node.registration import NodeRegistration
from kubewire.components.kubelet.objects import ReferencedObjects
from kubewire.components.kubelet.pod import launch, orphans
from kubewire.components.kubelet.pod.admission import Rejection
from kubewire.components.kubelet.pod.container_target import RuntimeTarget
from kubewire.components.kubelet.pod.gate import Gate
from kubewire.components.kubelet.pod.network import PodNetwork
from kubewire.components.kubelet.pod.node_services import NodeServices
from kubewire.components.kubelet.pod.state import PodState, adopt
from kubewire.components.kubelet.pod.worker import PodWorker
from kubewire.components.kubelet.resolvconf import ResolverConfig, parse
from kubewire.components.kubelet.static_pods import StaticPods
from kubewire.components.kubelet.stats import processes
from kubewire.components.kubelet.status.writer import StatusWriter
from kubewire.components.kubelet.usage import INTERVAL, Meter
from kubewire.components.kubelet.volumes.directories import Directories
from kubewire.components.kubelet.volumes.tokens import TokenCache
from kubewire.components.runtime.api import AsyncRuntimeClient, Process

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import ContainerImage, Pod, PodStatus, Service

log = logging.getLogger(__name__)
_STATUS_SECONDS = 5.0


async def _changed_within(watch: inotify.Watch, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await watch.changed()
    except TimeoutError:
        pass


def slim_pod(pod: Pod) -> Pod:
    """Drops managedFields, which the kubelet never reads, to save memory."""
    pod["metadata"].pop("managedFields", None)
    return pod


def slim_service(service: Service) -> Service:
    """Keeps only the fields that environment variables need: every node holds all Services."""
    metadata = service["metadata"]
    spec = service["spec"]
    kept = ("name", "namespace", "uid", "resourceVersion")
    return {
        "metadata": only(kept, metadata),
        "spec": only(("clusterIP", "ports"), spec),
    }


class Kubelet:
    """run() works until it is cancelled. The pods go on running after that, as upstream."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        runtime: AsyncRuntimeClient,
        catalogue: Catalogue,
    ) -> None:
        self.settings = settings
        self.client = client
        self.runtime = runtime
        self.directories = Directories(settings.root_dir, settings.pod_logs_dir)
        self.directories.pod("").mkdir(parents=True, exist_ok=True)
        self.machine = measure(settings.root_dir)
        self.metrics = Metrics(settings.node_name)
        self.meter = Meter()
        self.recorder = EventRecorder(client, "kubelet", settings.node_name)
        self.network = PodNetwork(
            settings.cni_conf_dir,
            (str(settings.cni_bin_dir),),
            settings.netns_dir,
        )
        self.status = StatusWriter(client, self._api_uid)
        self.objects = ReferencedObjects(client, self._objects_changed)
        self.images = ImagePuller(catalogue, settings.backoff)
        self.workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._left_behind: dict[str, list[Process]] = {}
        self._adopted = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self.services = Informer(client, SERVICES, transform=slim_service)
        self.pods = Informer(
            client,
            PODS,
            field_selector=f"spec.nodeName={settings.node_name}",
            transform=slim_pod,
        )
        self.pods.add_handler(self._pod_changed)
        self.registration = NodeRegistration(
            client,
            settings,
            self.machine,
            self.recorder,
            self.network.problem,
            self._node_images,
        )
        self.static_pods: StaticPods | None = None
        if settings.static_pod_path is not None:
            folder = settings.static_pod_path
            self.static_pods = StaticPods(
                folder,
                settings.node_name,
                client,
                self._static_pod_changed,
            )
        self.target = RuntimeTarget(runtime, self.images, self.find)
        self.node = self._services()
        self.gate = Gate(
            self.registration,
            self.node.facts.allocatable,
            self._admitted,
            lambda resource: self.metrics.preemptions.inc(resource),
        )

    def _services(self) -> NodeServices:
        settings = self.settings
        allocatable = capacity(self.machine, settings.max_pods)
        return NodeServices(
            settings=settings,
            facts=NodeFacts(settings.node_name, settings.node_ips, allocatable),
            resolver=_node_resolver(settings.resolv_conf),
            pid=os.getpid(),
            runtime=self.runtime,
            network=self.network,
            images=self.images,
            objects=self.objects,
            tokens=TokenCache(self.client),
            services=lambda: self.services.store.values(),
            services_ready=self.services.synced,
            recorder=self.recorder,
            status=self.status,
            client=self.client,
            session=self.session,
            directories=self.directories,
            metrics=self.metrics,
            admit=self._admit,
        )

    async def _admit(self, pod: Pod) -> Rejection | None:
        """Why this node cannot take the pod, or None."""
        await self.registration.registered.wait()
        return await self.gate.admit(pod)

    def _admitted(self) -> list[PodWorker]:
        return [
            worker
            for worker in self.workers.values()
            if worker.admitted and not worker.finished and not pods.is_terminal(worker.state.pod)
        ]

    async def run(self) -> None:
        """Adopts running pods, then works. Fails when the fork server goes away."""
        log.info("kubelet %s of node %s", KUBELET_VERSION, self.settings.node_name)
        exits = await self.runtime.subscribe({launch.NODE_LABEL: self.settings.node_name})
        jobs: list[Coroutine[Any, Any, None]] = [
            self.registration.run(),
            self.registration.renew_lease(),
            self.recorder.run(),
            self.services.run(),
            self._run_pods(),
            self._follow_exits(exits),
            self._watch_network(),
            self._measure(),
        ]
        if self.settings.make_iptables_util_chains:
            jobs.append(firewall.keep())
        if self.static_pods is not None:
            jobs.append(self._run_static_pods(self.static_pods))
        try:
            async with asyncio.TaskGroup() as group:
                for job in jobs:
                    group.create_task(job)
        finally:
            await self._close()

    async def _measure(self) -> None:
        """Reads what containers use, for the rates of /stats/summary."""
        while True:
            self.meter.measure(processes(self.workers.values()), time.time())
            await asyncio.sleep(INTERVAL)

    async def _run_pods(self) -> None:
        mine = {launch.NODE_LABEL: self.settings.node_name}
        self._left_behind = orphans.by_pod(await self.runtime.list(mine))
        everything = [process for left in self._left_behind.values() for process in left]
        self._adopted.set()
        watching = asyncio.create_task(self.pods.run(), name="watch pods")
        try:
            await self.pods.synced.wait()
            wanted = frozenset(self.workers) | self._static_uids()
            await orphans.end_unwanted(
                self._left_behind,
                wanted,
                self.runtime,
                self.network,
                self.directories,
            )
            for uid in self._left_behind.keys() - wanted:
                del self._left_behind[uid]
            await self._collect_garbage(orphans.sandboxes(everything))
            await watching
        finally:
            watching.cancel()

    def _static_uids(self) -> frozenset[str]:
        """The uids of the static pods in the folder, whose workers do not exist yet."""
        if self.static_pods is None:
            return frozenset()
        return frozenset(pods.uid(pod) for pod in self.static_pods.scan().values())

    async def _collect_garbage(self, adopted: dict[str, str]) -> None:
        """Removes network attachments without a sandbox, unless a sandbox is just being made."""
        known = [worker.state.record.sandbox for worker in self.workers.values()]
        if not self._starting():
            await self.network.collect_garbage(
                adopted | {record.id: record.netns for record in known if record is not None},
            )

    def _starting(self) -> bool:
        """Whether a worker may be making a sandbox that is not in its record yet."""
        workers = self.workers.values()
        return any(worker.busy and not worker.state.record.sandbox for worker in workers)

    async def _follow_exits(self, exits: AsyncIterator[Process]) -> None:
        await self._adopted.wait()
        async for process in exits:
            if worker := self.workers.get(launch.pod_uid(process)):
                worker.ended(process)
        raise ConnectionError("the fork server has gone away")

    async def _watch_network(self) -> None:
        """Reports a change of the network's state to the Node and to waiting pods at once.

        The state changes when the CNI agent writes its configuration, or when the plugins' STATUS
        does, which is asked every 5 seconds, as upstream asks the runtime's.
        """
        folder = self.settings.cni_conf_dir
        folder.mkdir(parents=True, exist_ok=True)
        before = self.network.problem()
        with inotify.Watch(folder) as watch:
            while True:
                await self.network.ask_status()
                if (now := self.network.problem()) == before:
                    await _changed_within(watch, _STATUS_SECONDS)
                    continue
                before = now
                self.registration.changed()
                for worker in self.workers.values():
                    worker.wake()

    async def _close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self.objects.close()
        if self._session is not None:
            await self._session.close()

    def _api_uid(self, pod: Pod) -> str | None:
        if pods.is_static(pod):
            return self.static_pods.mirror_uid(pod) if self.static_pods else None
        return pods.uid(pod)

    async def _run_static_pods(self, static_pods: StaticPods) -> None:
        await self.registration.registered.wait()
        await self.pods.synced.wait()
        static_pods.node_uid = self.registration.node_uid
        await static_pods.run()

    def _static_pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is not None:
            self._start_worker(new)
        elif old is not None and (worker := self.workers.get(pods.uid(old))):
            worker.update(old, deleted=True)

    def _mirror_changed(self, old: Pod | None, new: Pod | None) -> None:
        if self.static_pods is None:
            return
        static = self.static_pods.saw_mirror(old, new)
        if static is not None and (worker := self.workers.get(pods.uid(static))):
            if old is None:
                self.status.forget(worker.state.uid)
            worker.wake()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        if pods.is_mirror(pod):
            self._mirror_changed(old, new)
            return
        uid = pods.uid(pod)
        if uid in self.workers:
            self.workers[uid].update(pod, deleted=new is None)
            if new is not None:
                self.status.saw(new)
        elif new is not None:
            self._start_worker(new)

    def _start_worker(self, pod: Pod) -> None:
        uid = pods.uid(pod)
        left = self._left_behind.pop(uid, None)
        state = adopt(pod, left) if left else PodState(pod)
        worker = PodWorker(self.node, state)
        self.workers[uid] = worker
        if left:
            _describe_ended(worker, left)
        task = asyncio.create_task(worker.run(), name=f"pod {pods.full_name(pod)}")
        self._tasks[uid] = task
        task.add_done_callback(lambda done: self._worker_done(uid, done))

    def _worker_done(self, uid: str, task: asyncio.Task[None]) -> None:
        self.workers.pop(uid, None)
        self._tasks.pop(uid, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("pod worker %s: %s", uid, error, exc_info=error)

    def _objects_changed(self, uids: Iterable[str]) -> None:
        for uid in uids:
            if worker := self.workers.get(uid):
                worker.wake()

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod.

        A pod and its successor of the same name may both have one; the unfinished one is returned.
        """
        full_name = f"{name}_{namespace}"
        workers = self.workers.values()
        named = [worker for worker in workers if pods.full_name(worker.state.pod) == full_name]
        unfinished = (worker for worker in named if not worker.finished)
        return next(unfinished, named[0] if named else None)

    def session(self) -> aiohttp.ClientSession:
        """The HTTP client of probes and hooks, made on first use."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=False, force_close=True, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def unhealthy(self) -> str:
        """Why /healthz must fail; "" if all is well."""
        return "the fork server has gone away" if self.runtime.closed else ""

    def status_of(self, worker: PodWorker) -> PodStatus:
        return self.status.get(worker.state.uid) or worker.state.pod.get("status") or {}

    def metrics_text(self) -> str:
        records = [worker.state.record for worker in self.workers.values()]
        sandboxes = [record.sandbox for record in records if record.sandbox]
        running = sum(len(record.running()) for record in records)
        self.metrics.running_pods.set(sum(sandbox.ready for sandbox in sandboxes))
        self.metrics.running_containers.set(running, "running")
        self.metrics.status_writes.set(self.status.requests)
        return self.metrics.registry.text()

    def _node_images(self) -> list[ContainerImage]:
        names = sorted({image.name for image in self.images.catalogue.images.values()})
        return [{"names": [name], "sizeBytes": 0} for name in names[:50]]


def _describe_ended(worker: PodWorker, processes: list[Process]) -> None:
    """Reads the termination messages of containers that ended before this kubelet started."""
    for process in processes:
        if not process.running and launch.container_name(process):
            worker.containers.learn_message(process)


def _node_resolver(path: Path) -> ResolverConfig:
    try:
        return parse(path.read_text())
    except OSError as error:
        log.warning("resolvConf %s: %s", path, error)
        return ResolverConfig()
