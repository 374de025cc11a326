"""Lifecycle handlers: postStart and preStop by exec, httpGet, sleep or (deprecated) tcpSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from kubewire.components.kubelet import pods
from kubewire.components.kubelet.probes import http
from kubewire.components.kubelet.probes.actions import Exec, PortError, port_number, tcp


class HookError(Exception):
    """A handler failed; the text is that of FailedPostStartHook and FailedPreStopHook."""


async def run(
    handler: Mapping[str, Any],
    container: pods.Container,
    pod_ip: str,
    session: aiohttp.ClientSession,
    execute: Exec,
    timeout: float,
) -> None:
    """Raises HookError. timeout in seconds bounds every kind of handler."""
    if action := handler.get("exec"):
        await _exec(list(action.get("command") or []), execute, timeout)
    elif action := handler.get("sleep"):
        await asyncio.sleep(min(float(action["seconds"]), timeout))
    elif action := handler.get("httpGet"):
        try:
            wanted = http.target(action, pod_ip, port_number(action.get("port") or 80, container))
        except PortError as error:
            raise HookError(str(error)) from error
        wanted = http.HttpTarget(wanted.url, {**wanted.headers, "User-Agent": "kube-lifecycle/1.36"})
        result = await http.probe(session, wanted, timeout)
        if not result.success:
            raise HookError(result.output)
    elif action := handler.get("tcpSocket"):
        result = await tcp(action.get("host") or pod_ip, port_number(action["port"], container), timeout)
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
