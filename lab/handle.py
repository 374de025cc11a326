"""A running lab as scenarios see it, through its two sockets.

Scenarios know only the protocols in kubewire.scenarios.engine.handle; this module implements them.
Commands, programs and processes go through the fork server (runtime.sock), which runs in the lab
and can therefore start a process in the namespaces of any host or pod. Components are stopped and
started through the lab process (control.sock), which knows their command lines.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubewire.components.runtime.api import (
    Process,
    ProcessSpec,
    RuntimeClient,
    StartError,
    UnknownProcess,
)
from kubewire.lab import launch
from kubewire.lab.errors import LabError
from kubewire.lab.needs.doctor import missing_feature
from kubewire.lab.state import LabRecord, StateDirectory
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.handle import Completed, ComponentAction, Host


class RunningLab:
    """Implements LabHandle. Thread-safe: each thread has its own connection to the fork server."""

    def __init__(self, state: StateDirectory, record: LabRecord) -> None:
        self._state = state
        self._record = record
        self._connections = threading.local()
        self.spec = LabSpec.parse(record.spec, f"{state.path}/lab.json")

    @property
    def name(self) -> str:
        return self._state.name

    @property
    def state_dir(self) -> Path:
        return self._state.path

    @property
    def kubeconfig(self) -> Path:
        return self._state.kubeconfig

    def hosts(self) -> Sequence[Host]:
        return [Host(h.name, h.role, h.address, h.secondary) for h in self._record.hosts]  # type: ignore[arg-type]

    def _runtime(self) -> RuntimeClient:
        client: RuntimeClient | None = getattr(self._connections, "client", None)
        if client is None:
            client = self._connections.client = RuntimeClient(self._state.runtime_socket)
        return client

    def processes(self) -> list[Process]:
        """All processes that the fork server has started: components and containers."""
        return self._runtime().list({})

    def _spec(self, target: str, **what: Any) -> ProcessSpec:
        if target.startswith("pod:"):
            return ProcessSpec(container=self._container(target).id, **what)
        for host in self._record.hosts:
            if host.name == target:
                return ProcessSpec(join={"net": host.pid, "mnt": host.pid}, **what)
        names = ", ".join(host.name for host in self._record.hosts)
        raise LookupError(f"lab {self.name} has no host {target!r}; its hosts: {names}")

    def _container(self, target: str) -> Process:
        namespace, _, rest = target.removeprefix("pod:").partition("/")
        pod, _, container = rest.partition("/")
        labels = {"io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.name": pod}
        if container:
            labels["io.kubernetes.container.name"] = container
        found = [
            process
            for process in self._runtime().list(labels)
            if process.running
            and process.labels.get("io.kubernetes.container.name", "POD") != "POD"
        ]
        if not found:
            raise LookupError(f"lab {self.name} has no running container for {target!r}")
        return found[0]

    def exec(
        self,
        target: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Completed:
        """LabHandle.exec."""
        spec = self._spec(
            target,
            argv=tuple(argv),
            add_env=dict(env or {}),
            kill_on_disconnect=True,
        )
        with _ended_container_is_no_target(target):
            done = self._runtime().run(spec, stdin=stdin, timeout=timeout)
        return Completed(done.exit.shell_code, done.stdout, done.stderr)

    def start(
        self,
        target: str,
        *,
        main: str = "",
        args: Sequence[str] = (),
        argv: Sequence[str] = (),
        fds: Mapping[int, int] | None = None,
    ) -> RunningProgram:
        """LabHandle.start."""
        spec = self._spec(
            target,
            main=main,
            args=tuple(args),
            argv=tuple(argv),
            kill_on_disconnect=True,
        )
        with _ended_container_is_no_target(target):
            return RunningProgram(self._state.runtime_socket, spec, fds)

    def component(self, name: str, host: str, action: ComponentAction) -> None:
        """LabHandle.component. Raises LabError if the lab has no such component or has ended."""
        request = {"op": "component", "name": name, "host": host, "action": action}
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(str(self._state.control_socket))
                sock.sendall(json.dumps(request).encode() + b"\n")
                with sock.makefile() as lines:
                    line = lines.readline()
        except OSError as error:
            raise LabError(f"lab {self.name!r} does not answer: {error.strerror}") from error
        if not line:
            raise LabError(f"lab {self.name!r} ended before it answered")
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(answer["error"])


@contextmanager
def _ended_container_is_no_target(target: str) -> Iterator[None]:
    """A container can end after it was found: pods of other scenarios are deleted meanwhile."""
    try:
        yield
    except UnknownProcess as error:
        raise LookupError(f"the container of {target} is gone") from error
    except StartError as error:
        if error.stage != "container":
            raise
        raise LookupError(f"the container of {target} has ended") from error


class RunningProgram:
    """Implements Background: a program in the lab that ends when its connection is closed."""

    def __init__(
        self,
        socket_path: Path,
        spec: ProcessSpec,
        fds: Mapping[int, int] | None = None,
    ) -> None:
        self._client = RuntimeClient(socket_path)
        self._output: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        pipes = {name: os.pipe() for name in self._output}
        try:
            self._process = self._client.spawn(
                spec,
                stdout=pipes["stdout"][1],
                stderr=pipes["stderr"][1],
                fds=fds,
            )
        except BaseException:
            for read_end, _ in pipes.values():
                os.close(read_end)
            self._client.close()
            raise
        finally:
            for _, write_end in pipes.values():
                os.close(write_end)
        self._readers = [
            threading.Thread(target=self._read, args=(name, ends[0]), daemon=True)
            for name, ends in pipes.items()
        ]
        for reader in self._readers:
            reader.start()
        self._done: Completed | None = None

    def _read(self, name: str, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            while chunk := stream.read(65536):
                self._output[name] += chunk

    def wait(self, timeout: float | None = None) -> Completed:
        """Background.wait."""
        if self._done is None:
            status = self._client.wait(self._process.id, timeout)
            for reader in self._readers:
                reader.join(5.0)
            self._done = Completed(
                status.shell_code,
                self._output["stdout"],
                self._output["stderr"],
            )
            self._client.remove(self._process.id, force=True)
            self._client.close()
        return self._done

    def stop(self) -> Completed:
        """Background.stop."""
        if self._done is not None:
            return self._done
        self._client.signal(self._process.id, signal.SIGTERM)
        try:
            return self.wait(5.0)
        except TimeoutError:
            self._client.signal(self._process.id, signal.SIGKILL)
            return self.wait()


class LabStarter:
    """Implements LabFactory. Its labs end at the latest with this process."""

    def __init__(self, report: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        self._report = report

    def missing(self, feature: str) -> str:
        """Why this machine's kernel lacks feature; "" if it has it."""
        return missing_feature(feature)

    @contextmanager
    def __call__(self, spec: LabSpec, name: str) -> Iterator[RunningLab]:
        def report(event: dict[str, Any]) -> None:
            if self._report:
                self._report(name, event)

        started = launch.up(spec, name, report, attached=True)
        try:
            yield RunningLab(started.state, started.record)
        finally:
            started.end()
