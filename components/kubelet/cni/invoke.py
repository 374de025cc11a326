"""Runs a plugin: it gets an environment and JSON on stdin, and answers with JSON or an error
(CNI SPEC.md section 2; https://github.com/containernetworking/cni/tree/main/pkg/invoke)."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubewire.components.kernel import command
from kubewire.components.kubelet.cni.types import CNIError

log = logging.getLogger(__name__)

#: Plugins that run at the same time. More would gain nothing: each ADD waits for the locks of
#: host-local and iptables.
CONCURRENCY = 4
_BUSY_TRIES = 5
_BUSY_DELAY = 0.2

_Slots = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
# A semaphore can only be used in one event loop, so each loop gets its own.
_slots: _Slots = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Attachment:
    """An interface of a container in a network: the subject of every call of a plugin.

    args: become CNI_ARGS. capability_args: reach the plugins that list them in `capabilities`
    (portMappings, bandwidth, ips, mac, dns ...). netns: a path such as /run/netns/cni-UUID, or ""
    if the namespace is gone.
    """

    container_id: str
    netns: str
    ifname: str
    args: Mapping[str, str] = field(default_factory=dict)
    capability_args: Mapping[str, Any] = field(default_factory=dict)

    def environment(self, verb: str, plugin_dirs: Sequence[str]) -> dict[str, str]:
        """The plugin's environment: that of this process, for PATH, and the CNI_* variables."""
        return dict(os.environ) | {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in self.args.items()),
            "CNI_IFNAME": self.ifname,
            "CNI_PATH": os.pathsep.join(plugin_dirs),
        }


def find_plugin(name: str, plugin_dirs: Sequence[str]) -> str:
    """The path of a plugin's executable. Raises CNIError with libcni's texts."""
    if not name:
        raise CNIError("no plugin name provided")
    if "/" in name or "\\" in name:
        raise CNIError(f"invalid plugin name: {name}")
    if not plugin_dirs:
        raise CNIError("no paths provided")
    for folder in plugin_dirs:
        if Path(folder, name).is_file():
            return str(Path(folder, name))
    raise CNIError(f'failed to find plugin "{name}" in path [{" ".join(plugin_dirs)}]')


def plugin_error(completed: command.Completed) -> CNIError:
    """The error of a failed plugin: the JSON on its stdout, else the text on its stderr."""
    ended = command.ending(completed.returncode)
    if not completed.stdout.strip():
        if not completed.stderr.strip():
            return CNIError(f"netplugin failed with no error message: {ended}")
        output = json.dumps(completed.stderr.decode(errors="replace"))
        return CNIError(f"netplugin failed: {output}: {ended}")
    try:
        body = json.loads(completed.stdout)
        return CNIError(
            str(body.get("msg", "")),
            code=int(body.get("code", 0)),
            details=str(body.get("details", "")),
        )
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        output = json.dumps(completed.stdout.decode(errors="replace"))
        text = f"netplugin failed but error parsing its diagnostic message {output}: {error}"
        return CNIError(text)


def _slot() -> asyncio.Semaphore:
    return _slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(CONCURRENCY))


async def execute(
    plugin: str,
    verb: str,
    config: Mapping[str, Any],
    attachment: Attachment,
    *,
    plugin_dirs: Sequence[str],
    timeout: float,
) -> bytes:
    """Runs a plugin and returns its stdout.

    Raises CNIError if it fails or does not end within `timeout` seconds.
    """
    path = find_plugin(plugin, plugin_dirs)
    environment = attachment.environment(verb, plugin_dirs)
    async with _slot():
        try:
            completed = await _run(path, json.dumps(config).encode(), environment, timeout)
        except TimeoutError as error:
            ending = f"signal: killed (not done after {timeout:g} s)"
            raise CNIError(f"netplugin failed with no error message: {ending}") from error
        except OSError as error:
            raise CNIError(f"fork/exec {path}: {error.strerror}") from error
    if completed.returncode != 0:
        raise plugin_error(completed)
    if completed.stderr:
        output = completed.stderr.decode(errors="replace").strip()
        log.debug("%s %s: %s", plugin, verb, output)
    return completed.stdout


async def _run(
    path: str,
    stdin: bytes,
    environment: Mapping[str, str],
    timeout: float,
) -> command.Completed:
    for tries_left in reversed(range(_BUSY_TRIES)):
        try:
            return await command.run([path], stdin=stdin, env=environment, timeout=timeout)
        except OSError as error:
            # Another process is just writing the plugin's file. libcni waits and retries as well.
            if error.errno != errno.ETXTBSY or not tries_left:
                raise
        await asyncio.sleep(_BUSY_DELAY)
    raise AssertionError("unreachable")
