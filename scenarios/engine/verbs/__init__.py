"""The expectation verbs. A new one is a class and a line here, and its arguments in scenario.schema.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubewire.scenarios.engine.verbs.apistate import Events, ResourceState
from kubewire.scenarios.engine.verbs.base import Observation, ProbeVerb, Verb
from kubewire.scenarios.engine.verbs.commands import Exec
from kubewire.scenarios.engine.verbs.conntrack import Conntrack
from kubewire.scenarios.engine.verbs.kernel import Addresses, Fdb, Neighbours, Routes
from kubewire.scenarios.engine.verbs.packets import Packets
from kubewire.scenarios.engine.verbs.probes import Dns, Http, Ping, Tcp, Udp
from kubewire.scenarios.engine.verbs.rules import Rules
from kubewire.scenarios.engine.verbs.series import Series

PROBES: Mapping[str, type[Http] | type[Tcp] | type[Ping] | type[Dns]] = {
    "http": Http,
    "tcp": Tcp,
    "udp": Udp,
    "ping": Ping,
    "dns": Dns,
}
LOOKS: Mapping[str, type[Any]] = {
    "exec": Exec,
    "resource": ResourceState,
    "events": Events,
    "rules": Rules,
    "routes": Routes,
    "neighbours": Neighbours,
    "fdb": Fdb,
    "conntrack": Conntrack,
    "addresses": Addresses,
    "packets": Packets,
    "series": Series,
}

__all__ = ["LOOKS", "PROBES", "Observation", "ProbeVerb", "Verb"]
