"""Bring-up as a story: the ordered steps that turn an empty sandbox into a cluster. Runs as the
sandbox's PID 2.

Nothing here undoes anything: when a step fails the lab process ends, and with it the sandbox and
all it holds.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubewire.components.networks import registry
from kubewire.components.runtime.api import Process, ProcessSpec, RuntimeApiError, RuntimeClient
from kubewire.lab.bringup.components import (
    ADMIN_CONF,
    DNS_HOST,
    DOOR_FD,
    FABRIC,
    NO_NAMESERVER,
    ClusterAddresses,
    ComponentSpec,
    NodeFile,
    Role,
    component_specs,
    node_files,
    user_components,
    user_files,
)
from kubewire.lab.bringup.manifests import WRONG_INPUT
from kubewire.lab.bringup.pki import Authority
from kubewire.lab.errors import BringUpFailed, LabError
from kubewire.lab.sandbox import mounts
from kubewire.lab.sandbox.contents import topmost
from kubewire.lab.sandbox.process import Progress, code_folders
from kubewire.lab.sandbox.request import Doors
from kubewire.lab.state import HostRecord
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.topologies.plan import TopologyPlan

if TYPE_CHECKING:
    from mininet.net import Mininet

#: Of the lab's own folder, the same for every host: the fork server, its catalogue of images, the
#: lab file.
RUNTIME_SOCKET = mounts.LAB / "runtime.sock"
CATALOGUE = mounts.LAB / "images.yaml"
LAB_FILE = mounts.LAB / "lab.json"
_DEADLINE = 60.0
#: Of a lab whose ranges overlap: it may never become ready, and is worth looking at then, too.
_OVERLAP_DEADLINE = 30.0
#: What the last step may take as a multiple of the steps before it, if that is more: an emulated
#: processor on a busy machine needs minutes for what takes two seconds elsewhere.
_SLOW_MACHINE = 5
_READY_STEP = "nodes ready, cluster DNS answering"
#: With the quotes around it: what is in JSON becomes a number.
_PID = re.compile(r'"@pid:([^@]+)@"')
_COMPLAINT = re.compile(r"\b[WE]\b|^[WE]\d|WARN|ERROR|Traceback|Error")


@dataclass(frozen=True)
class _Begun:
    """A program that was started on a node; notes is the descriptor from which its notes come."""

    process: str
    notes: int
    log: Path
    node: str


class Lab:
    """A lab being brought up, then running: its network, its processes, its door."""

    def __init__(self, spec: LabSpec, name: str, doors: Doors, progress: Progress) -> None:
        self.spec = spec
        self.name = name
        self._doors = doors
        self._progress = progress
        self.plan: TopologyPlan = spec.plan
        self.authority = Authority()
        self.network: Mininet = None
        self.runtime: RuntimeClient
        self._runtime_process: subprocess.Popen[bytes]
        self.components: dict[str, ComponentSpec] = {}
        self.processes: dict[str, Process] = {}
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def bring_up(self) -> None:
        """All steps in order. Raises BringUpFailed naming the step, the node, the command and its
        output."""
        with self._step("fork server"):
            self._start_runtime()
        with self._step(f"network: {len(self.plan.nodes)} nodes, {self.plan.name}"):
            self._build_network()
        if not self.spec.kubernetes:
            with self._step("a bare lab: nothing runs on its hosts"):
                self._write(user_files(self.spec))
                self._connect_runtime()
                self._start_components(user_components(self.spec))
            return
        with self._step("certificates and node files"):
            self._write_files()
        with self._step("API server"):
            self._know_components()
            self._start_components([one for one in self.components.values() if one.serves_api])
            # Before the agents start, because they may do nothing until their roles are there.
            LAB_FILE.write_text(json.dumps(self.spec.as_dict()))
            addons = self._begin_on_control_plane("kubewire.lab.bringup.addons:main", "addons")
        with self._step("controllers, kubelets, kube-proxies, network agents"):
            self._start_components([one for one in self.components.values() if not one.serves_api])
        try:
            self._until_ready(addons)
        except BringUpFailed as error:
            # Who asked for ranges that overlap wants to see what becomes of them.
            if not self.spec.wanted_overlaps():
                raise
            self._progress.send(incomplete=error.fields())

    def _until_ready(self, addons: _Begun) -> None:
        with self._step(_READY_STEP) as step:
            self._finish(step, addons)
            if self.spec.has_working_dns:
                self._dns_answers()
        if self.spec.manifests:
            number = sum(len(one.objects) for one in self.spec.manifests)
            with self._step(f"manifests: {number} object{'' if number == 1 else 's'}") as step:
                begun = self._begin_on_control_plane(
                    "kubewire.lab.bringup.manifests:main", "manifests"
                )
                self._finish(step, begun)
        if self.spec.components and (dead := self.dead_component()):
            raise dead

    @contextmanager
    def _step(self, name: str) -> Iterator[str]:
        self._progress.send(step=name, state="start")
        began = time.monotonic()
        try:
            yield name
        except BringUpFailed:
            raise
        except _command_errors() as error:
            raise BringUpFailed(
                name,
                "a command failed",
                node=error.host,
                command=error.command,
                output=error.output,
            ) from error
        except (
            Exception
        ) as error:  # Mininet raises plain Exception; whatever it is, the step is named
            traceback.print_exc()
            raise BringUpFailed(name, str(error) or type(error).__name__) from error
        self._progress.send(step=name, state="done", seconds=round(time.monotonic() - began, 3))

    def _start_runtime(self) -> None:
        door = self._doors.runtime.fileno()
        command = [
            sys.executable,
            "-m",
            "kubewire.components.runtime",
            "--socket",
            str(RUNTIME_SOCKET),
        ]
        command += [
            "--listen-fd",
            str(door),
            "--state",
            str(mounts.LAB),
            "--lower",
            str(mounts.IMAGE),
        ]
        for folder in mounts.system_folders():
            command += ["--over", str(folder)]
        for folder in code_folders():
            command += ["--show", str(folder)]
        for share in self.spec.share:
            command += ["--share", share.path]
        with (mounts.LOGS / "runtime.log").open("ab") as log:
            self._runtime_process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[door]
            )
        # The fork server alone holds it: when that ends, connections are refused and not left
        # waiting.
        self._doors.runtime.close()

    def _connect_runtime(self) -> None:
        deadline = time.monotonic() + _DEADLINE
        while True:
            try:
                self.runtime = RuntimeClient(RUNTIME_SOCKET)
                return
            except RuntimeApiError:
                if self._runtime_process.poll() is not None or time.monotonic() > deadline:
                    raise BringUpFailed(
                        "fork server",
                        "it did not start",
                        command=" ".join(map(str, self._runtime_process.args)),  # type: ignore[arg-type]
                        output=_tail(mounts.LOGS / "runtime.log"),
                    ) from None
                time.sleep(0.005)

    def _build_network(self) -> None:
        # Mininet is imported only here: PID 1 and the command line have no use for it.
        from kubewire.topologies import network

        # kubewire itself may lie in /tmp, which is private to every node; so may what is shared.
        shown = [*code_folders(), *(Path(share.path) for share in self.spec.share)]
        own = [
            str(path)
            for path in topmost(shown)
            if path.is_relative_to("/tmp") or path.is_relative_to("/run")
        ]
        self.network = network.build(self.plan, *own, directories=[*registry.directories()])
        # Of the families that the lab has; every host sees this file.
        server = self.plan.find(DNS_HOST)
        nameservers = server.addresses if server else NO_NAMESERVER
        Path("/etc/resolv.conf").write_text(
            "".join(f"nameserver {address}\n" for address in nameservers)
        )

    def pid(self, host: str) -> int:
        """The pid whose net and mount namespaces are the host's."""
        pid: int = self.network.get(host).pid
        return pid

    def host_records(self) -> list[HostRecord]:
        return [
            HostRecord(m.name, m.role, m.address, self.pid(m.name), "".join(m.addresses[1:]))
            for m in self.plan.machines
        ]

    def _write_files(self) -> None:
        self._write(node_files(self.spec, self.plan, self.authority, self.name))
        self._write(user_files(self.spec))
        for node in self.plan.nodes:
            plugins = Path(f"/proc/{self.pid(node.name)}/root/opt/cni/bin")
            plugins.mkdir(parents=True)
            for binary in Path("/usr/lib/cni").iterdir():
                (plugins / binary.name).symlink_to(binary)
        if self.spec.images:
            self._write_catalogue()
        self._connect_runtime()

    def _write(self, files: Iterable[NodeFile]) -> None:
        for file in files:
            try:
                _write(Path(f"/proc/{self.pid(file.host)}/root{file.path}"), file)
            except OSError as error:
                raise LabError(
                    f"{file.path} on {file.host} cannot be written: {error.strerror}"
                ) from error

    def _write_catalogue(self) -> None:
        CATALOGUE.write_text(json.dumps(self.spec.as_dict()["images"]))

    def _know_components(self) -> None:
        catalogue = str(CATALOGUE) if self.spec.images else ""
        listed = component_specs(self.spec, self.plan, str(RUNTIME_SOCKET), catalogue)
        self.components = {one.id: one for one in listed}

    def _start_components(self, components: Iterable[ComponentSpec]) -> None:
        for component in components:
            self.components[component.id] = component
            self.start_component(component.id)

    def start_component(self, component_id: str) -> None:
        """Fork a component into its host. Raises BringUpFailed with the fork server's reason,
        LabError if it runs."""
        component = self.components[component_id]
        pid = 0 if component.host == FABRIC else self.pid(component.host)
        args = tuple(_PID.sub(lambda found: str(self.pid(found[1])), arg) for arg in component.args)
        spec = ProcessSpec(
            main=component.main,
            argv=component.argv,
            args=args,
            add_env=dict(component.environment),
            name=component.id,
            preload="light" if component.argv else "components",
            join={"net": pid, "mnt": pid} if pid else {},
            labels={"component": component.name, "host": component.host},
        )
        log = os.open(
            mounts.LOGS / f"{component.id}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )
        try:
            fds = {DOOR_FD: self._doors.api.fileno()} if component.door else None
            with self._lock:
                self._forget_ended(component_id)
                self.processes[component_id] = self.runtime.spawn(
                    spec, stdout=log, stderr=log, fds=fds
                )
        except RuntimeApiError as error:
            raise BringUpFailed(
                "start a component", str(error), node=component.host, command=component.command
            ) from error
        finally:
            os.close(log)

    def _forget_ended(self, component_id: str) -> None:
        before = self.processes.get(component_id)
        if before is None:
            return
        if self.runtime.get(before.id).running:
            raise LabError(f"{component_id} is already running; stop it first")
        self.runtime.remove(before.id)
        del self.processes[component_id]

    def signal_component(self, component_id: str, number: signal.Signals) -> None:
        """Signal it and wait until it has ended."""
        with self._lock:
            process = self.processes.get(component_id)
            if process is None:
                raise LabError(f"{component_id} has not been started")
            self.runtime.signal(process.id, number)
            self.runtime.wait(process.id, timeout=15.0)

    def dead_component(self) -> BringUpFailed | None:
        """A component that ended by itself during bring-up, with the end of its log. A user's may
        end with 0."""
        with self._lock:
            ended = [
                p for p in self.runtime.list({}) if "component" in p.labels and p.exit is not None
            ]
        named = [(p, self.components[f"{p.labels['component']}@{p.labels['host']}"]) for p in ended]
        # A process of the lab file may end, if it ends with 0.
        failed = [
            (process, spec)
            for process, spec in named
            if process.exit is not None and (spec.role is not Role.USER or process.exit.shell_code)
        ]
        if not failed:
            return None
        process, component = failed[0]
        assert process.exit is not None
        return BringUpFailed(
            f"start {component.name}",
            f"it ended with exit code {process.exit.shell_code}",
            node=component.host,
            command=component.command,
            output=_tail(mounts.LOGS / f"{component.id}.log"),
        )

    def _begin_on_control_plane(self, main: str, name: str) -> _Begun:
        """Starts a program on the control-plane node, as kubeadm would: the sandbox itself has no
        way to the API.

        It gets the administrator's kubeconfig and the lab file, and writes notes to stdout. Its log
        is NAME.log.
        """
        node = self.plan.nodes[0].name
        read_end, write_end = os.pipe()
        path = mounts.LOGS / f"{name}.log"
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        spec = ProcessSpec(
            main=main,
            args=(ADMIN_CONF, str(LAB_FILE)),
            name=f"kubewire-{name}",
            preload="components",
            join={"net": self.pid(node), "mnt": self.pid(node)},
        )
        try:
            process = self.runtime.spawn(spec, stdout=write_end, stderr=log)
        finally:
            os.close(write_end)
            os.close(log)
        return _Begun(process.id, read_end, path, node)

    def _finish(self, step: str, begun: _Begun) -> None:
        """Waits for the end of such a program. Raises BringUpFailed if it fails or takes too
        long."""
        with os.fdopen(begun.notes, "rb", buffering=0) as notes:
            try:
                self._follow_notes(step, notes.fileno(), time.monotonic() + self._patience())
            except BringUpFailed:
                self.runtime.signal(begun.process, signal.SIGKILL)
                raise
        status = self.runtime.wait(begun.process, timeout=5.0)
        output = _tail(begun.log)
        if status.shell_code == WRONG_INPUT:
            raise BringUpFailed(step, output.splitlines()[-1], output=self._complaints())
        if status.shell_code:
            raise BringUpFailed(
                step, f"exit code {status.shell_code}", node=begun.node, output=output
            )
        self.runtime.remove(begun.process)

    def _dns_answers(self) -> None:
        """On every node: what the first pod of a user asks for must not depend on kube-proxy's pace
        there."""
        server = ClusterAddresses.of(self.spec.network.serviceCIDR).dns_service
        name = f"kubernetes.default.svc.{self.spec.network.clusterDomain}"
        # Another Corefile may well not know this name.
        wanted = ("any",) if self.spec.dns.corefile else ()
        probes = {
            node.name: self.runtime.spawn(
                ProcessSpec(
                    main="kubewire.lab.bringup.dns_probe:main",
                    args=(server, name, str(_DEADLINE), *wanted),
                    name="kubewire-dns-probe",
                    join={"net": self.pid(node.name), "mnt": self.pid(node.name)},
                )
            )
            for node in self.plan.nodes
        }
        for node_name, probe in probes.items():
            if self.runtime.wait(probe.id, timeout=_DEADLINE + 5.0).shell_code:
                reason = f"no answer from {server} to {name} within {_DEADLINE:.0f} s"
                raise BringUpFailed(_READY_STEP, reason, node=node_name, output=self._complaints())
            self.runtime.remove(probe.id)

    def _patience(self) -> float:
        """Seconds that a step may take which waits for the cluster."""
        elapsed = time.monotonic() - self._began
        if self.spec.wanted_overlaps():
            return max(_OVERLAP_DEADLINE, 3 * elapsed)
        return max(_DEADLINE + 2 * len(self.plan.nodes), _SLOW_MACHINE * elapsed)

    def _follow_notes(self, step: str, descriptor: int, deadline: float) -> None:
        last = "the API server has not answered yet"
        unfinished = b""
        while True:
            readable, _, _ = select.select([descriptor], [], [], 1.0)
            if readable:
                data = os.read(descriptor, 65536)
                if not data:
                    return
                # A pipe keeps no boundaries: a note and the end of its line may come one after the
                # other.
                *lines, unfinished = (unfinished + data).split(b"\n")
                if lines:
                    last = lines[-1].decode()
                    self._progress.send(note=last)
            elif dead := self.dead_component():
                raise dead
            if time.monotonic() > deadline:
                raise BringUpFailed(step, f"not ready in time: {last}", output=self._complaints())

    def _complaints(self) -> str:
        """The last warning or error of each component's log."""
        found = []
        for log in sorted(mounts.LOGS.glob("*@*.log")):
            lines = [line for line in _tail(log).splitlines() if _COMPLAINT.search(line)]
            found += [f"{log.stem}: {line}" for line in lines[-1:]]
        return "\n".join(found)


def _command_errors() -> tuple[type[Any], ...]:
    from kubewire.topologies.network import CommandFailed

    return (CommandFailed,)


def _write(path: Path, file: NodeFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=file.mode)
    path.write_bytes(file.content)
    path.chmod(file.mode)


def _tail(log: Path) -> str:
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    return ""
