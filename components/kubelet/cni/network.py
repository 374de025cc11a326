"""A network's plugins as a chain: ADD forward, DEL backward, CHECK, STATUS, GC
(CNI SPEC.md section 3; https://github.com/containernetworking/cni/blob/main/libcni/api.go)."""

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
_ON_THE_NODE = Attachment("", "", "")


def plugin_config(
    network: NetworkConfigList,
    plugin: PluginConfig,
    previous: Result | None = None,
    capability_args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a plugin reads on stdin: its own object plus name, cniVersion, prevResult and runtimeConfig."""
    config = dict(plugin.config) | {"name": network.name, "cniVersion": network.cni_version}
    if previous is not None:
        config["prevResult"] = previous.as_version(network.cni_version).dump()
    wanted = {key: value for key, value in (capability_args or {}).items() if key in plugin.capabilities}
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
        raise CNIError("interface name is empty, too long or has invalid characters", code=4, details=name)


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
    """Join the container to the network; the result is cached for check and delete.

    When a plugin fails, the chain is taken back by DEL (SPEC.md: the runtime must call DEL after a failed ADD),
    so that the address is given back, and the plugin's CNIError is raised. timeout is per plugin, in seconds.
    """
    attachment = Attachment(container_id, netns_path, ifname, args or {}, capability_args or {})
    _validate(network, attachment)
    result: Result | None = None
    try:
        for plugin in network.plugins:
            config = plugin_config(network, plugin, result, attachment.capability_args)
            try:
                output = await execute(plugin.type, "ADD", config, attachment, plugin_dirs=plugin_dirs, timeout=timeout)
                result = _result(output, network.cni_version)
            except CNIError as error:
                raise error.within(f"plugin {plugin.description} failed (add): ") from error
        assert result is not None, "a network has at least one plugin"
        _store(cache_dir, network, attachment, result)
    except CNIError:
        await _take_back(network, attachment, result, plugin_dirs, timeout)
        raise
    return result


def _result(output: bytes, version: str) -> Result:
    try:
        return Result.parse(json.loads(output), version)
    except (ValueError, RecursionError) as error:
        raise CNIError(f"error decoding result: {error}") from error


def _store(cache_dir: str, network: NetworkConfigList, attachment: Attachment, result: Result) -> None:
    try:
        cache.store(cache_dir, network, attachment, result)
    except OSError as error:
        raise CNIError(f'failed to set network "{network.name}" cached result: {error}') from error


async def _take_back(
    network: NetworkConfigList,
    attachment: Attachment,
    previous: Result | None,
    plugin_dirs: Sequence[str],
    timeout: float,
) -> None:
    """DEL after a failed ADD: every plugin is tried, what fails is logged, the ADD's error is what matters."""
    previous = previous if at_least(network.cni_version, "0.4.0") else None
    for plugin in reversed(network.plugins):
        config = plugin_config(network, plugin, previous, attachment.capability_args)
        try:
            await execute(plugin.type, "DEL", config, attachment, plugin_dirs=plugin_dirs, timeout=timeout)
        except CNIError as error:
            log.warning("DEL after a failed ADD of %s: plugin %s: %s", attachment.container_id, plugin.type, error)


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
    """Take the container out of the network. Succeeds when it is not in it (any more).

    Arguments left out are taken from the cached ADD: its args, its capability_args, and its netns path when
    that still is there. Raises CNIError of the plugin that failed; nothing is forgotten then, so try again.
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
            await execute(plugin.type, "DEL", config, attachment, plugin_dirs=plugin_dirs, timeout=timeout)
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
    """Is the container's network still as ADD left it? Raises CNIError when not, and for versions before 0.4.0."""
    if not at_least(network.cni_version, "0.4.0"):
        raise CNIError(f'configuration version "{network.cni_version}" does not support the CHECK command')
    if network.disable_check:
        return
    attachment = Attachment(container_id, netns_path, ifname, args or {}, capability_args or {})
    cached = cache.load(cache_dir, network.name, attachment)
    if cached is not None:
        attachment = _completed(attachment, cached.attachment)
    previous = cached.result if cached else None
    for plugin in network.plugins:
        config = plugin_config(network, plugin, previous, attachment.capability_args)
        await execute(plugin.type, "CHECK", config, attachment, plugin_dirs=plugin_dirs, timeout=timeout)


async def status(
    network: NetworkConfigList,
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Can the plugins serve an ADD now? Raises CNIError (code 50 or 51 by the spec) when not.
    Versions before 1.1.0 have no STATUS; they pass."""
    if not at_least(network.cni_version, "1.1.0"):
        return
    for plugin in network.plugins:
        config = plugin_config(network, plugin)
        await execute(plugin.type, "STATUS", config, _ON_THE_NODE, plugin_dirs=plugin_dirs, timeout=timeout)


async def gc(
    network: NetworkConfigList,
    valid: Sequence[tuple[str, str]],
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    cache_dir: str = cache.DEFAULT_CACHE_DIR,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Give back what containers left that no longer are. valid holds (container id, interface name).

    Cached attachments outside valid get a DEL; from 1.1.0 on the plugins get a GC too.
    Everything is tried; raises one CNIError with all that failed.
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
            errors.append(f"failed to delete stale attachment {stale.container_id} {stale.ifname}: {error}")
    if at_least(network.cni_version, "1.1.0"):
        errors += await _gc_plugins(network, keep, plugin_dirs, timeout)
    if errors:
        raise CNIError("\n".join(errors))


async def _gc_plugins(
    network: NetworkConfigList, keep: set[tuple[str, str]], plugin_dirs: Sequence[str], timeout: float
) -> list[str]:
    errors = []
    attachments = [{"containerID": container, "ifname": ifname} for container, ifname in sorted(keep)]
    for plugin in network.plugins:
        config = plugin_config(network, plugin) | {"cni.dev/valid-attachments": attachments}
        try:
            await execute(plugin.type, "GC", config, _ON_THE_NODE, plugin_dirs=plugin_dirs, timeout=timeout)
        except CNIError as error:
            errors.append(f"failed to GC plugin {plugin.type}: {error}")
    return errors


async def validate(
    network: NetworkConfigList,
    *,
    plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
    timeout: float = DEFAULT_TIMEOUT,
) -> frozenset[str]:
    """Every plugin is there and speaks the network's version (CNI VERSION). Returns the network's capabilities."""
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
                problems.append(f'plugin {plugin.type} does not support config version "{network.cni_version}"')
        except CNIError as error:
            problems.append(str(error))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problems.append(f"decoding version info of plugin {plugin.type}: {error}")
    if problems:
        raise CNIError(f"[{' '.join(problems)}]", code=7)
    return network.capabilities
