"""The verbs of expectations. A new verb needs a module with a table VERBS, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from kubewire.scenarios.engine.verbs.base import Look, Probe

MODULES = (
    "probes",
    "commands",
    "apistate",
    "rules",
    "kernel",
    "conntrack",
    "packets",
    "series",
    "reachability",
)
VERBS: Mapping[str, type[Look] | type[Probe]] = {
    name: verb
    for module in (import_module(f"{__name__}.{name}") for name in MODULES)
    for name, verb in module.VERBS.items()
}
