"""The list of policy engines. A new one is a folder below engines/ with a descriptor (engine.py),
and an import and an entry here.

`python -m kubewire.lab.setup.generate` then writes the lab file's schema and its page.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kubewire.components.addon import Setting
from kubewire.components.policy.engine import PolicyEngine
from kubewire.components.policy.engines.azure_npm import engine as azure_npm
from kubewire.components.policy.engines.kube_network_policies import (
    engine as kube_network_policies,
)
from kubewire.components.policy.engines.none import engine as none
from kubewire.components.policy.engines.weave_npc import engine as weave_npc

if TYPE_CHECKING:
    from kubewire.components.policy.carrier import Carriers

#: In the order of the documentation.
ENGINES: tuple[PolicyEngine[Any], ...] = (
    weave_npc.ENGINE,
    azure_npm.ENGINE,
    kube_network_policies.ENGINE,
    none.ENGINE,
)


def engine(name: str) -> PolicyEngine[Any]:
    """Raises KeyError."""
    return {one.name: one for one in ENGINES}[name]


def carriers_of(name: str) -> Carriers | None:
    """The function of an engine's explain.py, None if it has none. Raises KeyError."""
    module = f"{engine(name).addon.package}.explain"
    if find_spec(module) is None:
        return None
    found: Carriers = import_module(module).carriers
    return found


def default_for(network: str) -> PolicyEngine[Any]:
    """The engine that a pod network has unless a lab file names another."""
    return next((one for one in ENGINES if network in one.default_for), none.ENGINE)


def settings() -> tuple[Setting, ...]:
    """The settings of all engines, each once."""
    return tuple(
        {setting.name: setting for one in ENGINES for setting in one.addon.settings}.values()
    )


def engines_with(setting: str) -> list[str]:
    """The names of the engines that have a setting."""
    return [one.name for one in ENGINES if setting in {own.name for own in one.addon.settings}]


def backend_names() -> list[str]:
    """The names of all backends, each once."""
    return list(dict.fromkeys(name for one in ENGINES for name in one.addon.backend_names))


def schema() -> dict[str, Any]:
    """The JSON Schema of `policy` in a lab file."""
    properties = {
        "engine": {"enum": [one.name for one in ENGINES]},
        "backend": {"enum": backend_names()},
        **{setting.name: dict(setting.schema) for setting in settings()},
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}
