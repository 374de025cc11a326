"""Lifecycle hooks: runs postStart and preStop handlers (exec, httpGet, sleep, and the deprecated
tcpSocket)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from kubewire.components.kubelet.probes import http
from kubewire.components.kubelet.probes.actions import Exec, PortError, port_number, tcp

if TYPE_CHECKING:
    from kubewire.components.kubeapi.types import Container, LifecycleHandler


class HookError(Exception):
    """The handler failed; the text is for the events FailedPostStartHook and FailedPreStopHook."""


async def run(
    handler: LifecycleHandler,
    container: Container,
    pod_ip: str,
    session: aiohttp.ClientSession,
    execute: Exec,
    timeout: float,
) -> None:
    """Runs a handler for at most `timeout` seconds. Raises HookError."""
    if command := handler.get("exec"):
        await _exec(list(command.get("command") or []), execute, timeout)
    elif sleep := handler.get("sleep"):
        await asyncio.sleep(min(float(sleep["seconds"]), timeout))
    elif http_get := handler.get("httpGet"):
        try:
            wanted = http.target(
                http_get, pod_ip, port_number(http_get.get("port") or 80, container)
            )
        except PortError as error:
            raise HookError(str(error)) from error
        headers = {**wanted.headers, "User-Agent": "kube-lifecycle/1.36"}
        wanted = http.HttpTarget(wanted.url, headers)
        result = await http.probe(session, wanted, timeout)
        if not result.success:
            raise HookError(result.output)
    elif tcp_socket := handler.get("tcpSocket"):
        port = port_number(tcp_socket["port"], container)
        result = await tcp(tcp_socket.get("host") or pod_ip, port, timeout)
        if not result.success:
            raise HookError(result.output)
    else:
        raise HookError("invalid handler: it has no action")


async def _exec(argv: list[str], execute: Exec, timeout: float) -> None:
    command = " ".join(argv)
    try:
        code, output = await execute(argv, timeout)
    except TimeoutError as error:
        raise HookError(f"command '{command}' timed out") from error
    except OSError as error:
        raise HookError(f"command '{command}' could not be started: {error}") from error
    if code:
        text = output.decode(errors="replace")
        raise HookError(f"command '{command}' exited with {code}: {text}")
