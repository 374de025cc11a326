"""The parts of a lab file that are mappings or lists of their own, besides the address ranges
(addresses.py), the topology (topologyfile.py), manifests and files.

Each part is a frozen dataclass; `of` makes it from a lab file's data, which the schema has checked,
and `as_dict` is the way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from kubewire.components.addon import AddOn, Choice, Setting
from kubewire.components.kube_proxy import modes
from kubewire.components.networks import registry
from kubewire.components.networks.podnetwork import PodNetwork
from kubewire.components.policy import registry as engines
from kubewire.components.policy.engine import PolicyEngine
from kubewire.scenarios.engine.file.jsonobject import EMPTY, JsonObject


@dataclass(frozen=True)
class CNI:
    """The pod network, its backend and its settings, as components/networks/registry.py lists them.

    settings are (key, value) in the registry's order; a value that is a mapping is a tuple of its
    sorted pairs. plugin "none": nothing is installed, nodes stay NotReady until somebody installs a
    network.
    """

    plugin: str = registry.NETWORKS[0].name
    backend: str = registry.NETWORKS[0].addon.backend_names[0]
    settings: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> CNI:
        """What a lab file says, with the defaults of the network that it names. Settings of other
        networks are kept, and validation names them."""
        plugin = data.get("plugin", cls.plugin)
        addon = registry.network(plugin).addon
        backend = data.get("backend", addon.backend_names[0])
        return cls(plugin, backend, _settings(data, addon, registry.settings()))

    def as_dict(self) -> dict[str, Any]:
        """The lab file's mapping, with all defaults. A setting that is a mapping is written also
        where it is empty."""
        settings = _in_file(self.settings, registry.settings())
        return {"plugin": self.plugin, "backend": self.backend, **settings}

    @property
    def given(self) -> dict[str, Any]:
        """The settings as a lab file has them."""
        return _given(self.settings, registry.settings())

    @property
    def network(self) -> PodNetwork[Any]:
        """The descriptor of the network."""
        return registry.network(self.plugin)

    @property
    def choice(self) -> Choice[Any]:
        """What the functions of the descriptor get. Raises KeyError for a backend of another
        network."""
        return self.network.addon.choose(self.backend, self.given)

    @property
    def requires(self) -> tuple[str, ...]:
        """What the backend needs of the kernel beyond what every lab does, by doctor's names."""
        return self.choice.backend.requires


@dataclass(frozen=True)
class Policy:
    """The engine that enforces network policies, as components/policy/registry.py lists them.

    engine "": the one that the pod network has by default. backend "": the engine's first.
    settings as those of CNI.
    """

    engine: str = ""
    backend: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any], network: str) -> Policy:
        """What a lab file says, without what is the default of a pod network or of an engine."""
        default = engines.default_for(network)
        engine = engines.engine(data["engine"]) if "engine" in data else default
        backend = data.get("backend", "")
        return cls(
            "" if engine is default else engine.name,
            "" if backend == engine.addon.backend_names[0] else backend,
            _settings(data, engine.addon, engines.settings()),
        )

    def as_dict(self, network: str) -> dict[str, Any]:
        """The lab file's mapping, with all defaults."""
        engine = self.engine_of(network)
        settings = _in_file(self.settings, engines.settings())
        return {"engine": engine.name, "backend": self.backend_of(network), **settings}

    def engine_of(self, network: str) -> PolicyEngine[Any]:
        """The descriptor of the engine."""
        return engines.engine(self.engine) if self.engine else engines.default_for(network)

    def backend_of(self, network: str) -> str:
        return self.backend or self.engine_of(network).addon.backend_names[0]

    def choice(self, network: str) -> Choice[Any]:
        """What the functions of the descriptor get. Raises KeyError for a backend of another
        engine."""
        given = _given(self.settings, engines.settings())
        return self.engine_of(network).addon.choose(self.backend_of(network), given)


@dataclass(frozen=True)
class KubeProxy:
    """mode "none": no kube-proxy runs. configuration: other fields of KubeProxyConfiguration, as a
    file has them."""

    mode: str = modes.MODES[0].name
    configuration: JsonObject = EMPTY

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> KubeProxy:
        others = {key: value for key, value in data.items() if key != "mode"}
        return cls(data.get("mode", cls.mode), JsonObject.of(others))

    @property
    def requires(self) -> tuple[str, ...]:
        """What the mode needs of the kernel beyond what every lab does, by doctor's names."""
        mode = modes.find(self.mode)
        return mode.requires if mode else ()

    @property
    def needs_host_users(self) -> str:
        """Why the mode needs the first user namespace, or ""."""
        mode = modes.find(self.mode)
        return mode.needs_host_users if mode else ""


@dataclass(frozen=True)
class DNS:
    """replicas of kube-system/coredns; 0: no cluster DNS. corefile: in place of kubeadm's."""

    replicas: int = 2
    corefile: str = ""


@dataclass(frozen=True)
class Image:
    """A program of the machine under an image name, as the kubelet's catalogue has it
    (components/kubelet/images).

    entrypoint, or argv, which is the same, or main, a Python function; or cmd alone.
    """

    argv: tuple[str, ...] = ()
    main: str = ""
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    programs: tuple[tuple[str, str], ...] = ()
    workingDir: str = ""
    user: int | None = None
    preload: Literal["light", "components"] = "light"
    tools: tuple[tuple[str, str], ...] = ()
    aliases: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Image:
        return cls(**{key: _hashable(value) for key, value in data.items()})

    def as_dict(self) -> dict[str, Any]:
        """What differs from the defaults."""
        plain: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                plain[item.name] = value if isinstance(value, str) else list(value)
        mappings = ("env", "programs", "tools")
        return {key: dict(value) if key in mappings else value for key, value in plain.items()}


@dataclass(frozen=True)
class Share:
    """A file or folder of the machine that the lab sees under the same path. A string in a lab file
    is its path."""

    path: str
    readOnly: bool = True

    @classmethod
    def of(cls, entry: str | Mapping[str, Any]) -> Share:
        return cls(entry) if isinstance(entry, str) else cls(**entry)


@dataclass(frozen=True)
class Component:
    """A process of the user's own on the nodes whose names match: command is an argv, or program
    takes the place of the lab's own component of that name, with its flags."""

    name: str
    command: tuple[str, ...] = ()
    program: str = ""
    nodes: str = "*"
    env: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Component:
        env = tuple(sorted(data.get("env", {}).items()))
        return cls(**{**data, "command": tuple(data.get("command", ())), "env": env})

    def as_dict(self) -> dict[str, Any]:
        """The form of a lab file."""
        what = {"program": self.program} if self.program else {"command": list(self.command)}
        return {"name": self.name, **what, "nodes": self.nodes, "env": dict(self.env)}


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    return tuple(value) if isinstance(value, list) else value


def _settings(
    data: Mapping[str, Any], addon: AddOn[Any], every: tuple[Setting, ...]
) -> tuple[tuple[str, Any], ...]:
    """(key, value) of what data says of every setting of a registry, with the defaults of an
    add-on, in the registry's order; a mapping is a tuple of its sorted pairs."""
    defaults = {setting.name: setting.default for setting in addon.settings}
    settings = []
    for setting in every:
        value = data.get(setting.name, defaults.get(setting.name))
        if setting.is_mapping:
            value = tuple(sorted((value or {}).items()))
        is_known = setting.name in data or setting.name in defaults
        if is_known and value is not None and value != ():
            settings.append((setting.name, value))
    return tuple(settings)


def _given(settings: tuple[tuple[str, Any], ...], every: tuple[Setting, ...]) -> dict[str, Any]:
    """Settings as a lab file has them."""
    mappings = {setting.name for setting in every if setting.is_mapping}
    return {name: dict(value) if name in mappings else value for name, value in settings}


def _in_file(settings: tuple[tuple[str, Any], ...], every: tuple[Setting, ...]) -> dict[str, Any]:
    """Settings as a lab file has them, those that are mappings also where they are empty."""
    empty: dict[str, Any] = {setting.name: {} for setting in every if setting.is_mapping}
    given = empty | _given(settings, every)
    return {setting.name: given[setting.name] for setting in every if setting.name in given}
