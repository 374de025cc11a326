"""Start one plugin: environment, JSON on stdin, JSON or an error back
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

#: Plugins running at once in one process. Each ADD takes host-local's lock and iptables' anyway.
CONCURRENCY = 4
_BUSY_TRIES, _BUSY_DELAY = 5, 0.2

# A semaphore belongs to one event loop; this maps the loop to it and forgets it with the loop.
_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Attachment:
    """One interface of one container in one network: what every call of a plugin is about.

    args become CNI_ARGS; capability_args (portMappings, bandwidth, ips, mac, dns, ...) reach the plugins
    that name them under capabilities. netns is a path such as /run/netns/cni-UUID, "" when it is gone.
    """

    container_id: str
    netns: str
    ifname: str
    args: Mapping[str, str] = field(default_factory=dict)
    capability_args: Mapping[str, Any] = field(default_factory=dict)

    def environment(self, verb: str, plugin_dirs: Sequence[str]) -> dict[str, str]:
        """The plugin's environment: ours (for PATH) and the CNI_* variables."""
        return dict(os.environ) | {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in self.args.items()),
            "CNI_IFNAME": self.ifname,
            "CNI_PATH": os.pathsep.join(plugin_dirs),
        }


def find_plugin(name: str, plugin_dirs: Sequence[str]) -> str:
    """The executable of a plugin type. Raises CNIError with libcni's texts."""
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
    """A failed plugin's error: its JSON when it wrote some, else what it said on stderr."""
    ended = command.ending(completed.returncode)
    if not completed.stdout.strip():
        if not completed.stderr.strip():
            return CNIError(f"netplugin failed with no error message: {ended}")
        said = json.dumps(completed.stderr.decode(errors="replace"))
        return CNIError(f"netplugin failed: {said}: {ended}")
    try:
        body = json.loads(completed.stdout)
        return CNIError(str(body.get("msg", "")), code=int(body.get("code", 0)), details=str(body.get("details", "")))
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        said = json.dumps(completed.stdout.decode(errors="replace"))
        return CNIError(f"netplugin failed but error parsing its diagnostic message {said}: {error}")


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
    """Run a plugin and return its stdout. Raises CNIError, also when it does not end within timeout seconds."""
    path = find_plugin(plugin, plugin_dirs)
    environment = attachment.environment(verb, plugin_dirs)
    async with _slot():
        try:
            completed = await _run(path, json.dumps(config).encode(), environment, timeout)
        except TimeoutError as error:
            raise CNIError(
                f"netplugin failed with no error message: signal: killed (not done after {timeout:g} s)"
            ) from error
        except OSError as error:
            raise CNIError(f"fork/exec {path}: {error.strerror}") from error
    if completed.returncode != 0:
        raise plugin_error(completed)
    if completed.stderr:
        log.debug("%s %s: %s", plugin, verb, completed.stderr.decode(errors="replace").strip())
    return completed.stdout


async def _run(path: str, stdin: bytes, environment: Mapping[str, str], timeout: float) -> command.Completed:
    for tries_left in reversed(range(_BUSY_TRIES)):
        try:
            return await command.run([path], stdin=stdin, env=environment, timeout=timeout)
        except OSError as error:
            # The plugin's file is just being installed; libcni waits and tries again too.
            if error.errno != errno.ETXTBSY or not tries_left:
                raise
        await asyncio.sleep(_BUSY_DELAY)
    raise AssertionError("unreachable")
