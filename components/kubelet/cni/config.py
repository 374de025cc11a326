"""Network configuration lists, read as libcni and containerd read them
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
    """A configuration that cannot be used; the text is libcni's."""


class NoConfigError(ConfigError):
    """No file in the directory holds a network; the kubelet reports the node as not ready meanwhile."""


@dataclass(frozen=True)
class PluginConfig:
    """One plugin of a list. config is its object as it stands in the file."""

    type: str
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        name = self.config.get("name", "")
        return name if isinstance(name, str) else ""

    @property
    def capabilities(self) -> frozenset[str]:
        """The runtimeConfig keys this plugin asks for."""
        return frozenset(key for key, wanted in (self.config.get("capabilities") or {}).items() if wanted)

    @property
    def description(self) -> str:
        """As libcni names a plugin in its errors: type="bridge" name="..."."""
        return f'type="{self.type}"' + (f' name="{self.name}"' if self.name else "")


@dataclass(frozen=True)
class NetworkConfigList:
    """A network: its plugins in the order of ADD. raw is the list's text, kept with each cached result."""

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
        raise ConfigError(f"error parsing configuration list: invalid type {type(value).__name__} for {key}")
    if value.lower() not in ("true", "false"):
        raise ConfigError(f'error parsing configuration list: invalid value "{value}" for {key}')
    return value.lower() == "true"


def _version(data: Mapping[str, Any]) -> str:
    """cniVersion, or the newest of cniVersions that we speak (SPEC.md 1.1.0 "Version considerations")."""
    single, offered = data.get("cniVersion", ""), data.get("cniVersions", [])
    if not isinstance(single, str):
        raise ConfigError(f"error parsing configuration list: invalid cniVersion type {type(single).__name__}")
    if not isinstance(offered, list) or not all(isinstance(entry, str) for entry in offered):
        raise ConfigError("error parsing configuration list: invalid type for cniVersions")
    try:
        known = [
            entry
            for entry in (*offered, *([single] if single else []))
            if version_key(entry) <= version_key(CURRENT_VERSION)
        ]
    except ValueError as error:
        raise ConfigError(f"error parsing configuration list: invalid cniVersion: {error}") from error
    version = max(known, key=version_key) if known else single or "0.1.0"
    if version not in VERSIONS:
        raise ConfigError(f'unsupported CNI version "{version}"; supported are {", ".join(VERSIONS)}')
    return version


def _plugin(data: Any, index: int) -> PluginConfig:
    if not isinstance(data, dict) or not isinstance(data.get("type"), str) or not data["type"]:
        raise ConfigError(f"failed to parse plugin config {index}: error parsing configuration: missing 'type'")
    if not isinstance(data.get("capabilities") or {}, dict):
        raise ConfigError(f"failed to parse plugin config {index}: error parsing configuration: invalid 'capabilities'")
    return PluginConfig(data["type"], data)


def parse_list(raw: bytes, path: str = "") -> NetworkConfigList:
    """A *.conflist. Raises ConfigError."""
    data = _object(raw, "error parsing configuration list")
    if "name" not in data:
        raise ConfigError("error parsing configuration list: no name")
    if not isinstance(data["name"], str):
        raise ConfigError(f"error parsing configuration list: invalid name type {type(data['name']).__name__}")
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
    """Plugins in files of their own, NETWORK/*.conf beside the list, by name of the file (SPEC.md 1.1.0; libcni 1.3).

    So a plugin joins a network's chain without a change to somebody else's file.
    """
    try:
        files = sorted(entry for entry in folder.iterdir() if entry.suffix == ".conf")
    except (OSError, ValueError):  # ValueError: a name that no folder can have
        return []
    return [_object(file.read_bytes(), f"error parsing configuration {file.name}") for file in files]


def parse_single(raw: bytes, path: str = "") -> NetworkConfigList:
    """A *.conf or *.json with one plugin (deprecated upstream since 1.0.0), as a list of one."""
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
    """One file, by its suffix. Raises ConfigError, or OSError when it cannot be read."""
    raw = Path(path).read_bytes()
    parse = parse_list if str(path).endswith(".conflist") else parse_single
    return parse(raw, str(path))


def load_network(conf_dir: str | Path = DEFAULT_CONF_DIR) -> NetworkConfigList:
    """The first valid network of a directory, in lexical order of the file names.

    A file that does not parse is logged and passed over, as containerd does. Raises NoConfigError.
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
