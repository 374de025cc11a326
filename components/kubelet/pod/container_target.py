"""exec, attach and port-forward for this node's pods: implements streaming/target.py's contract.

The kubelet makes a pipe per stream and hands one end to the fork server with the request. The
process of an exec without a terminal gets these ends itself. For a terminal or an attachment, the
fork server copies between them and the process.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.images.pulls import ImagePuller
from kubewire.components.kubelet.pod.launch import exec_spec
from kubewire.components.kubelet.pod.network import connect_within, in_own_thread
from kubewire.components.kubelet.pod.worker import PodWorker, Stage
from kubewire.components.kubelet.records import ContainerRecord
from kubewire.components.kubelet.streaming.target import TargetError
from kubewire.components.runtime.api import AsyncRuntimeClient, RuntimeApiError, StartError, Tty

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"

#: Finds the worker of a pod by namespace and name.
Find = Callable[[str, str], PodWorker | None]


#: `kubectl run -it` attaches when it has seen that the container runs. A quick command may have
#: ended by then, so for this many seconds it can still be attached to.
_ATTACH_AFTER_END = 1.0


def can_be_attached_to(record: ContainerRecord, now: float) -> bool:
    """Whether a container runs, or has just ended. The runtime refuses an ended one whose output
    it does not keep for a client (stdinOnce), so that the client reads the log."""
    return record.running or now - record.finished_at < _ATTACH_AFTER_END


class RuntimeSession:
    """A process of `kubectl exec` (owned), which ends with the session, or an attachment."""

    def __init__(
        self,
        runtime: AsyncRuntimeClient,
        process_id: str,
        ends: tuple[int, int, int],
        *,
        owned: bool,
    ) -> None:
        self._runtime = runtime
        self._id = process_id
        self._owned = owned
        self.stdin, self.stdout, self.stderr = ends

    async def wait(self) -> int:
        code = (await self._runtime.wait(self._id)).shell_code
        return code if self._owned else 0

    async def resize(self, rows: int, columns: int) -> None:
        await self._runtime.resize(self._id, rows, columns)

    def close_stdin(self) -> None:
        self._close("stdin")

    async def close(self) -> None:
        for name in ("stdin", "stdout", "stderr"):
            self._close(name)
        if self._owned:
            try:
                await self._runtime.remove(self._id, force=True)
            except RuntimeApiError:
                pass

    def _close(self, name: str) -> None:
        descriptor = getattr(self, name)
        if descriptor >= 0:
            setattr(self, name, -1)
            os.close(descriptor)


def _pipes(stdin: bool, stdout: bool, stderr: bool) -> tuple[list[int], tuple[int, int, int]]:
    """Makes pipes; returns the process's and the kubelet's ends, -1 for a stream not wanted."""
    process_ends = [-1, -1, -1]
    kubelet_ends = [-1, -1, -1]
    for index, wanted in enumerate((stdin, stdout, stderr)):
        if wanted:
            read, write = os.pipe2(os.O_CLOEXEC)
            process_ends[index] = read if index == 0 else write
            kubelet_ends[index] = write if index == 0 else read
            os.set_blocking(kubelet_ends[index], False)
    return process_ends, (kubelet_ends[0], kubelet_ends[1], kubelet_ends[2])


def _optional(fd: int) -> int | None:
    return fd if fd >= 0 else None


class RuntimeTarget:
    """Implements ContainerTarget."""

    def __init__(self, runtime: AsyncRuntimeClient, images: ImagePuller, find: Find) -> None:
        self._runtime = runtime
        self._images = images
        self._find = find

    def running(self, namespace: str, pod: str, container: str) -> ContainerRecord | None:
        """The container's run; None if it does not run. Raises TargetError for an unknown pod."""
        record = self._record(namespace, pod, container)
        return record if record is not None and record.running else None

    def _record(self, namespace: str, pod: str, container: str) -> ContainerRecord | None:
        worker = self._find(namespace, pod)
        if worker is None:
            raise TargetError(404, f"pod does not exist: {pod}_{namespace}")
        name = container or default_container(worker)
        return worker.state.record.current.get(name)

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> RuntimeSession:
        record = self.running(namespace, pod, container)
        if record is None:
            raise TargetError(404, f'container not found ("{container}")')
        program = self._images.program(record.image, argv)
        spec = exec_spec(program, record.id, Tty() if tty else None, stdin_open=tty and stdin)
        process_ends, kubelet_ends = _pipes(stdin, stdout, stderr and not tty)
        try:
            # The pipes go with the start, and not with an attachment after it, because a quick
            # process may write and end before the attachment.
            process = await self._runtime.spawn(
                spec,
                stdin=_optional(process_ends[0]),
                stdout=_optional(process_ends[1]),
                stderr=_optional(process_ends[2]),
            )
        except (RuntimeApiError, OSError) as error:
            _close(kubelet_ends)
            status = 500 if isinstance(error, StartError | OSError) else 400
            raise TargetError(status, f"OCI runtime exec failed: {error}") from error
        finally:
            _close(process_ends)
        return RuntimeSession(self._runtime, process.id, kubelet_ends, owned=True)

    async def _attach(self, process_id: str, process_ends: Sequence[int]) -> None:
        await self._runtime.attach(
            process_id,
            stdin=_optional(process_ends[0]),
            stdout=_optional(process_ends[1]),
            stderr=_optional(process_ends[2]),
        )

    async def attach(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
    ) -> RuntimeSession:
        record = self._record(namespace, pod, container)
        if record is None or not can_be_attached_to(record, time.time()):
            raise TargetError(404, f"container {container} not found in pod {pod}_{namespace}")
        process_ends, kubelet_ends = _pipes(stdin, stdout, stderr and not tty)
        try:
            await self._attach(record.id, process_ends)
        except (RuntimeApiError, OSError) as error:
            _close(kubelet_ends)
            if not record.running:
                text = f"container {container} not found in pod {pod}_{namespace}"
                raise TargetError(404, text) from error
            raise TargetError(500, f"failed to attach to container: {error}") from error
        finally:
            _close(process_ends)
        return RuntimeSession(self._runtime, record.id, kubelet_ends, owned=False)

    async def port_connect(
        self,
        namespace: str,
        pod: str,
        port: int,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        worker = self._find(namespace, pod)
        sandbox = worker.state.record.sandbox if worker else None
        if worker is None or sandbox is None or not sandbox.ready or worker.stage is Stage.GONE:
            raise TargetError(404, f"pod not found: {pod}_{namespace}")
        if not sandbox.netns:
            return await asyncio.open_connection("127.0.0.1", port)
        netns = Path(sandbox.netns)
        try:
            return await _connect(netns, socket.AF_INET, "127.0.0.1", port)
        except OSError as error:
            first = error
        try:
            return await _connect(netns, socket.AF_INET6, "::1", port)
        except OSError as error:
            # containerd's text.
            raise OSError(
                f'failed to execute portforward in network namespace "{netns}": '
                f'failed to connect to localhost:{port} inside namespace "{netns}", '
                f"IPv4: dial tcp4 127.0.0.1:{port}: connect: {_reason(first)} "
                f"IPv6 dial tcp6 [::1]:{port}: connect: {_reason(error)}"
            ) from error


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


async def _connect(
    netns: Path,
    family: socket.AddressFamily,
    host: str,
    port: int,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects inside a network namespace: a socket belongs to the namespace it was made in."""
    sock = await in_own_thread(lambda: connect_within(netns, family))
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except OSError:
        sock.close()
        raise
    return await asyncio.open_connection(sock=sock)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def default_container(worker: PodWorker) -> str:
    annotations = worker.state.pod["metadata"].get("annotations") or {}
    return str(annotations.get(_DEFAULT_CONTAINER) or pods.containers(worker.state.pod)[0]["name"])
