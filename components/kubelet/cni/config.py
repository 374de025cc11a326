"""Reads network configuration lists as libcni and containerd do
(CNI SPEC.md section 1; https://github.com/containernetworking/cni/blob/main/libcni/conf.go)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubewire.components.kubelet.cni.types import CURRENT_VERSION, VERSIONS, version_key

log = logging.getLogger(__name__)

DEFAULT_CONF_DIR = "/etc/cni/net.d"
_SUFFIXES = (".conf", ".conflist", ".json")


class ConfigError(ValueError):
    """The configuration cannot be used; the text is libcni's."""


class NoConfigError(ConfigError):
    """No file in the directory is a valid network; until one is, the node is not ready."""


@dataclass(frozen=True)
class PluginConfig:
    """A plugin of a list. config: its object in the file, unchanged."""

    type: str
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        name = self.config.get("name", "")
        return name if isinstance(name, str) else ""

    @property
    def capabilities(self) -> frozenset[str]:
        """The keys of runtimeConfig that the plugin wants."""
        capabilities = self.config.get("capabilities") or {}
        return frozenset(key for key, wanted in capabilities.items() if wanted)

    @property
    def description(self) -> str:
        """The plugin's name in libcni's errors: type="bridge" name="..."."""
        return f'type="{self.type}"' + (f' name="{self.name}"' if self.name else "")


@dataclass(frozen=True)
class NetworkConfigList:
    """A network. plugins: in the order of ADD. raw: the file's text, stored with cached results."""

    name: str
    cni_version: str
    plugins: tuple[PluginConfig, ...]
    disable_check: bool = False
    disable_gc: bool = False
    raw: bytes = b""
    path: str = ""

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset().union(*(plugin.capabilities for plugin in self.plugins))


def _flag(data: Mapping[str, Any], key: str) -> bool:
    value = data.get(key, False)
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        wrong = f"invalid type {type(value).__name__} for {key}"
        raise ConfigError(f"error parsing configuration list: {wrong}")
    if value.lower() not in ("true", "false"):
        raise ConfigError(f'error parsing configuration list: invalid value "{value}" for {key}')
    return value.lower() == "true"


def _version(data: Mapping[str, Any]) -> str:
    """The newest known version of cniVersions and cniVersion (SPEC.md "Version considerations")."""
    single = data.get("cniVersion", "")
    offered = data.get("cniVersions", [])
    if not isinstance(single, str):
        wrong = f"invalid cniVersion type {type(single).__name__}"
        raise ConfigError(f"error parsing configuration list: {wrong}")
    if not isinstance(offered, list) or not all(isinstance(entry, str) for entry in offered):
        raise ConfigError("error parsing configuration list: invalid type for cniVersions")
    try:
        known = [
            entry
            for entry in (*offered, *([single] if single else []))
            if version_key(entry) <= version_key(CURRENT_VERSION)
        ]
    except ValueError as error:
        text = f"error parsing configuration list: invalid cniVersion: {error}"
        raise ConfigError(text) from error
    version = max(known, key=version_key) if known else single or "0.1.0"
    if version not in VERSIONS:
        raise ConfigError(
            f'unsupported CNI version "{version}"; supported are {", ".join(VERSIONS)}',
        )
    return version


def _plugin(data: Any, index: int) -> PluginConfig:
    problem = f"failed to parse plugin config {index}: error parsing configuration"
    if not isinstance(data, dict) or not isinstance(data.get("type"), str) or not data["type"]:
        raise ConfigError(f"{problem}: missing 'type'")
    if not isinstance(data.get("capabilities") or {}, dict):
        raise ConfigError(f"{problem}: invalid 'capabilities'")
    return PluginConfig(data["type"], data)


def parse_list(raw: bytes, path: str = "") -> NetworkConfigList:
    """Parses a *.conflist. path: the file's, for plugins in files beside it. Raises ConfigError."""
    data = _object(raw, "error parsing configuration list")
    if "name" not in data:
        raise ConfigError("error parsing configuration list: no name")
    if not isinstance(data["name"], str):
        wrong = f"invalid name type {type(data['name']).__name__}"
        raise ConfigError(f"error parsing configuration list: {wrong}")
    plugins = data.get("plugins", [])
    if not isinstance(plugins, list):
        raise ConfigError("error parsing configuration list: invalid 'plugins' type")
    if path and not _flag(data, "loadOnlyInlinedPlugins"):
        plugins = [*plugins, *_beside(Path(path).parent / data["name"])]
    if not plugins:
        missing = "no plugins in list" if "plugins" in data else "no 'plugins' key"
        raise ConfigError(f"error parsing configuration list: {missing}")
    parsed = tuple(_plugin(entry, index) for index, entry in enumerate(plugins))
    return NetworkConfigList(
        name=data["name"],
        cni_version=_version(data),
        plugins=parsed,
        disable_check=_flag(data, "disableCheck"),
        disable_gc=_flag(data, "disableGC"),
        raw=raw,
        path=path,
    )


def _beside(folder: Path) -> list[Any]:
    """The plugins in NETWORK/*.conf beside the list, in the order of the file names.

    With such a file a plugin joins the chain without changing the list, which another program owns
    (SPEC.md 1.1.0; libcni 1.3).
    """
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.suffix == ".conf")
    except (OSError, ValueError):  # ValueError: the name contains a null character
        return []
    what = "error parsing configuration"
    return [_object(file.read_bytes(), f"{what} {file.name}") for file in files]


def parse_single(raw: bytes, path: str = "") -> NetworkConfigList:
    """Parses a *.conf or *.json with a single plugin (deprecated since 1.0.0) as a list."""
    data = _object(raw, "error parsing configuration")
    if not data.get("type"):
        raise ConfigError("error loading config: no 'type'; perhaps this is a .conflist?")
    upgraded = {
        "name": data.get("name", ""),
        "cniVersion": data.get("cniVersion", ""),
        "plugins": [data],
    }
    return parse_list(json.dumps(upgraded).encode(), path)


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what}: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{what}: not a JSON object")
    return data


def load_file(path: str | Path) -> NetworkConfigList:
    """Reads a file by its suffix. Raises ConfigError, or OSError if it cannot be read."""
    raw = Path(path).read_bytes()
    parse = parse_list if str(path).endswith(".conflist") else parse_single
    return parse(raw, str(path))


def load_network(conf_dir: str | Path = DEFAULT_CONF_DIR) -> NetworkConfigList:
    """Reads the first valid network of a directory, in the lexical order of the file names.

    As in containerd, an invalid file is logged and skipped. Raises NoConfigError.
    """
    folder = Path(conf_dir)
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in _SUFFIXES)
    except OSError:
        names = []
    for name in names:
        try:
            return load_file(folder / name)
        except (ConfigError, OSError) as error:
            log.warning("Error loading CNI config list file %s: %s", folder / name, error)
    if names:
        raise NoConfigError(f"no valid networks found in {folder}")
    raise NoConfigError(f"no network config found in {folder}: cni plugin not initialized")
