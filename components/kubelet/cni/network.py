"""Runs the plugins of a network as a chain (CNI SPEC.md section 3;
https://github.com/containernetworking/cni/blob/main/libcni/api.go).

A network is a list of plugins, each an executable with one task: bridge makes the interface and
asks host-local for an address, portmap writes rules for hostPorts. ADD runs them in order. Each
plugin gets the result of the one before as prevResult and returns a result of its own, which adds
to it or passes it on; the last result is that of the network. DEL runs them in the reverse order,
so that each plugin still finds what the plugins before it have made.

The rules of the spec that the functions here depend on:

- The runtime runs one operation at a time for a container (section 2), so this module needs no lock
  per container; the pod's worker ensures it.
- A failed ADD must be followed by DEL, because earlier plugins of the chain have already made an
  interface and taken an address.
- DEL must succeed if the attachment is gone, even if its network namespace is. Plugins then free
  what they can; CNI_NETNS is empty.
- DEL and CHECK get the result of ADD as prevResult (from 0.4.0 on), so it is stored (cache.py).
- A plugin cannot notice that a container disappeared without a DEL, for example in a crash of the
  node. GC (1.1.0) tells it which attachments are still valid. STATUS (1.1.0) asks whether ADD can
  work.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kubewire.components.kubelet.cni import cache
from kubewire.components.kubelet.cni.config import NetworkConfigList, PluginConfig
from kubewire.components.kubelet.cni.invoke import Attachment, execute
from kubewire.components.kubelet.cni.types import CNIError, Result, at_least

log = logging.getLogger(__name__)

DEFAULT_PLUGIN_DIRS = ("/opt/cni/bin",)
DEFAULT_TIMEOUT = 60.0
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")
#: The attachment of operations that concern no container: STATUS, GC and VERSION.
_ON_THE_NODE = Attachment("", "", "")


def plugin_config(
    network: NetworkConfigList,
    plugin: PluginConfig,
    previous: Result | None = None,
    capability_args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON for a plugin's stdin.

    It is the plugin's object in the file, plus name, cniVersion, prevResult and runtimeConfig.
    """
    config = dict(plugin.config) | {"name": network.name, "cniVersion": network.cni_version}
    if previous is not None:
        config["prevResult"] = previous.as_version(network.cni_version).dump()
    args = (capability_args or {}).items()
    wanted = {key: value for key, value in args if key in plugin.capabilities}
    if wanted:
        config["runtimeConfig"] = wanted
    return config


def _validate(network: NetworkConfigList, attachment: Attachment) -> None:
    """libcni's checks before ADD (pkg/utils)."""
    if not attachment.container_id:
        raise CNIError("missing containerID", code=3)
    if not _NAME.match(attachment.container_id):
        raise CNIError("invalid characters in containerID", code=4, details=attachment.container_id)
    if not network.name:
        raise CNIError("missing network name:", code=7)
    if not _NAME.match(network.name):
        raise CNIError("invalid characters found in network name", code=7, details=network.name)
    name = attachment.ifname
    if not name or len(name) > 15 or name in (".", "..") or re.search(r"[/:\s]", name):
        text = "interface name is empty, too long or has invalid characters"
        raise CNIError(text, code=4, details=name)


async def add(
    network: NetworkConfigList,
    container_id: str,
    netns_path: str,
    ifname: str = "eth0",
    args: Mapping[str, str] | None = None,
    capability_args: Mapping[str, Any] | None = None,
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    cache_dir: str = cache.DEFAULT_CACHE_DIR,
    timeout: float = DEFAULT_TIMEOUT,
) -> Result:
    """Attaches a container to the network; caches the result for check() and delete().

    If a plugin fails, DEL frees what the chain has made, and the plugin's CNIError is raised.
    timeout: per plugin, in seconds.
    """
    attachment = Attachment(container_id, netns_path, ifname, args or {}, capability_args or {})
    _validate(network, attachment)
    result: Result | None = None
    try:
        for plugin in network.plugins:
            config = plugin_config(network, plugin, result, attachment.capability_args)
            try:
                output = await execute(
                    plugin.type,
                    "ADD",
                    config,
                    attachment,
                    plugin_dirs=plugin_dirs,
                    timeout=timeout,
                )
                result = _result(output, network.cni_version)
            except CNIError as error:
                raise error.within(f"plugin {plugin.description} failed (add): ") from error
        assert result is not None, "a network has at least one plugin"
        _store(cache_dir, network, attachment, result)
    except CNIError:
        await _undo_add(network, attachment, result, plugin_dirs, timeout)
        raise
    return result


def _result(output: bytes, version: str) -> Result:
    try:
        return Result.parse(json.loads(output), version)
    except (ValueError, RecursionError) as error:
        raise CNIError(f"error decoding result: {error}") from error


def _store(
    cache_dir: str,
    network: NetworkConfigList,
    attachment: Attachment,
    result: Result,
) -> None:
    try:
        cache.store(cache_dir, network, attachment, result)
    except OSError as error:
        raise CNIError(f'failed to set network "{network.name}" cached result: {error}') from error


async def _undo_add(
    network: NetworkConfigList,
    attachment: Attachment,
    previous: Result | None,
    plugin_dirs: Sequence[str],
    timeout: float,
) -> None:
    """Runs DEL after a failed ADD. Failures are only logged, because ADD's error is reported."""
    previous = previous if at_least(network.cni_version, "0.4.0") else None
    for plugin in reversed(network.plugins):
        config = plugin_config(network, plugin, previous, attachment.capability_args)
        try:
            await execute(
                plugin.type,
                "DEL",
                config,
                attachment,
                plugin_dirs=plugin_dirs,
                timeout=timeout,
            )
        except CNIError as error:
            log.warning(
                "DEL after a failed ADD of %s: plugin %s: %s",
                attachment.container_id,
                plugin.type,
                error,
            )


async def delete(
    network: NetworkConfigList,
    container_id: str,
    netns_path: str = "",
    ifname: str = "eth0",
    args: Mapping[str, str] | None = None,
    capability_args: Mapping[str, Any] | None = None,
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    cache_dir: str = cache.DEFAULT_CACHE_DIR,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Detaches a container from the network. Succeeds if it is not attached.

    Arguments that are left out come from the cached ADD: args, capability_args, and netns_path if
    it still exists. Raises the CNIError of the first plugin that fails. The cache is then kept, so
    that the caller can retry.
    """
    attachment = Attachment(container_id, netns_path, ifname, args or {}, capability_args or {})
    try:
        cached = cache.load(cache_dir, network.name, attachment)
    except CNIError as error:
        log.warning("%s", error)
        cached = None
    if cached is not None:
        attachment = _completed(attachment, cached.attachment)
    previous = cached.result if cached and at_least(network.cni_version, "0.4.0") else None
    for plugin in reversed(network.plugins):
        config = plugin_config(network, plugin, previous, attachment.capability_args)
        try:
            await execute(
                plugin.type,
                "DEL",
                config,
                attachment,
                plugin_dirs=plugin_dirs,
                timeout=timeout,
            )
        except CNIError as error:
            raise error.within(f"plugin {plugin.description} failed (delete): ") from error
    cache.remove(cache_dir, network.name, attachment)


def _completed(given: Attachment, cached: Attachment) -> Attachment:
    return Attachment(
        given.container_id,
        given.netns or (cached.netns if Path(cached.netns).exists() else ""),
        given.ifname,
        given.args or cached.args,
        given.capability_args or cached.capability_args,
    )


async def check(
    network: NetworkConfigList,
    container_id: str,
    netns_path: str,
    ifname: str = "eth0",
    args: Mapping[str, str] | None = None,
    capability_args: Mapping[str, Any] | None = None,
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    cache_dir: str = cache.DEFAULT_CACHE_DIR,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Checks that the container's network is as ADD left it.

    Raises CNIError if it is not, and for versions before 0.4.0, which have no CHECK.
    """
    if not at_least(network.cni_version, "0.4.0"):
        version = f'configuration version "{network.cni_version}"'
        raise CNIError(f"{version} does not support the CHECK command")
    if network.disable_check:
        return
    attachment = Attachment(container_id, netns_path, ifname, args or {}, capability_args or {})
    cached = cache.load(cache_dir, network.name, attachment)
    if cached is not None:
        attachment = _completed(attachment, cached.attachment)
    previous = cached.result if cached else None
    for plugin in network.plugins:
        config = plugin_config(network, plugin, previous, attachment.capability_args)
        await execute(
            plugin.type,
            "CHECK",
            config,
            attachment,
            plugin_dirs=plugin_dirs,
            timeout=timeout,
        )


async def status(
    network: NetworkConfigList,
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Checks that the plugins can run ADD. Raises CNIError (code 50 or 51 by the spec) if not.

    Versions before 1.1.0 have no STATUS, and pass.
    """
    if not at_least(network.cni_version, "1.1.0"):
        return
    for plugin in network.plugins:
        config = plugin_config(network, plugin)
        await execute(
            plugin.type,
            "STATUS",
            config,
            _ON_THE_NODE,
            plugin_dirs=plugin_dirs,
            timeout=timeout,
        )


async def gc(
    network: NetworkConfigList,
    valid: Sequence[tuple[str, str]],
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    cache_dir: str = cache.DEFAULT_CACHE_DIR,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Removes attachments of containers that no longer exist.

    valid: (container id, interface name) of those that do. Other cached attachments get a DEL, and
    from 1.1.0 on all plugins get a GC. A failure does not stop the rest; one CNIError reports all.
    """
    if network.disable_gc:
        return
    errors: list[str] = []
    keep = set(valid)
    for cached in list(cache.attachments(cache_dir)):
        stale = cached.attachment
        if cached.network != network.name or (stale.container_id, stale.ifname) in keep:
            continue
        try:
            await delete(
                network,
                stale.container_id,
                stale.netns,
                stale.ifname,
                plugin_dirs=plugin_dirs,
                cache_dir=cache_dir,
                timeout=timeout,
            )
        except CNIError as error:
            which = f"{stale.container_id} {stale.ifname}"
            errors.append(f"failed to delete stale attachment {which}: {error}")
    if at_least(network.cni_version, "1.1.0"):
        errors += await _gc_plugins(network, keep, plugin_dirs, timeout)
    if errors:
        raise CNIError("\n".join(errors))


async def _gc_plugins(
    network: NetworkConfigList,
    keep: set[tuple[str, str]],
    plugin_dirs: Sequence[str],
    timeout: float,
) -> list[str]:
    errors = []
    attachments = [{"containerID": id_, "ifname": ifname} for id_, ifname in sorted(keep)]
    for plugin in network.plugins:
        config = plugin_config(network, plugin) | {"cni.dev/valid-attachments": attachments}
        try:
            await execute(
                plugin.type,
                "GC",
                config,
                _ON_THE_NODE,
                plugin_dirs=plugin_dirs,
                timeout=timeout,
            )
        except CNIError as error:
            errors.append(f"failed to GC plugin {plugin.type}: {error}")
    return errors


async def validate(
    network: NetworkConfigList,
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    timeout: float = DEFAULT_TIMEOUT,
) -> frozenset[str]:
    """Checks that every plugin exists and supports the network's version (CNI VERSION).

    Returns the network's capabilities. Raises CNIError with all problems.
    """
    problems = []
    for plugin in network.plugins:
        try:
            output = await execute(
                plugin.type,
                "VERSION",
                {"cniVersion": network.cni_version},
                _ON_THE_NODE,
                plugin_dirs=plugin_dirs,
                timeout=timeout,
            )
            if network.cni_version not in json.loads(output)["supportedVersions"]:
                version = f'config version "{network.cni_version}"'
                problems.append(f"plugin {plugin.type} does not support {version}")
        except CNIError as error:
            problems.append(str(error))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problems.append(f"decoding version info of plugin {plugin.type}: {error}")
    if problems:
        raise CNIError(f"[{' '.join(problems)}]", code=7)
    return network.capabilities
