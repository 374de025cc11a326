"""Carries out a probe: httpGet, tcpSocket, exec or grpc."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import aiohttp

from kubewire.components.base.golang import format_duration
from kubewire.components.kubelet.probes import grpc, http
from kubewire.components.kubelet.probes.http import ProbeResult
from kubewire.components.kubelet.probes.state import ProbeSpec

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container

_MAX_OUTPUT = 10 * 1024

#: Runs argv in a container for at most so many seconds; returns exit code and output. Raises
#: TimeoutError, or OSError if it cannot start.
Exec = Callable[[list[str], float], Awaitable[tuple[int, bytes]]]


class PortError(ValueError):
    """The probe refers to a port that the container does not have."""


def port_number(port: int | str, container: Container) -> int:
    """The number of a port that is given by number or by its name. Raises PortError."""
    if isinstance(port, int) or str(port).isdigit():
        number = int(port)
        if 0 < number < 65536:
            return number
        raise PortError(f"invalid port number: {number}")
    for entry in container.get("ports") or []:
        if entry.get("name") == port:
            return int(entry["containerPort"])
    raise PortError(f'couldn\'t find port: "{port}" in container "{container["name"]}"')


async def run(
    spec: ProbeSpec,
    container: Container,
    pod_ip: str,
    session: aiohttp.ClientSession,
    execute: Exec,
) -> ProbeResult:
    """Runs a probe. It raises nothing: a failure is a result with the text for the event."""
    handler = spec.handler
    try:
        if http_get := handler.get("httpGet"):
            wanted = http.target(http_get, pod_ip, port_number(http_get["port"], container))
            return await http.probe(session, wanted, spec.timeout)
        if tcp_socket := handler.get("tcpSocket"):
            host = tcp_socket.get("host") or pod_ip
            return await tcp(host, port_number(tcp_socket["port"], container), spec.timeout)
        if call := handler.get("grpc"):
            service = call.get("service") or ""
            return await grpc.probe(pod_ip, int(call["port"]), service, spec.timeout)
        if command := handler.get("exec"):
            return await _exec(execute, list(command.get("command") or []), spec.timeout)
    except PortError as error:
        return ProbeResult(False, str(error))
    return ProbeResult(False, f"missing probe handler for {container['name']}")


async def tcp(host: str, port: int, timeout: float) -> ProbeResult:
    """Opens a connection and closes it at once; succeeds if it opens."""
    bracketed = f"[{host}]" if ":" in host else host
    place = f"{bracketed}:{port}"
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return ProbeResult(False, f"dial tcp {place}: i/o timeout")
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        number = errno.ECONNREFUSED if refused else error.errno
        cause = OSError(number, error.strerror or str(error))
        return ProbeResult(False, http.dial_error(f"tcp://{place}", cause))
    writer.close()
    return ProbeResult(True)


async def _exec(execute: Exec, argv: list[str], timeout: float) -> ProbeResult:
    try:
        code, output = await execute(argv, timeout)
    except TimeoutError:
        command = " ".join(argv)
        limit = format_duration(timeout)
        return ProbeResult(False, f'command timed out: "{command}" timed out after {limit}')
    except OSError as error:
        return ProbeResult(False, str(error))
    text = output[:_MAX_OUTPUT].decode(errors="replace")
    return ProbeResult(code == 0, text)
