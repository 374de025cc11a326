"""The descriptor of `engine: none`: the API accepts policies, and nothing enforces them."""

from __future__ import annotations

from typing import Any

from kubewire.components.addon import AddOn, Backend, Choice, Cluster, Installation
from kubewire.components.policy.engine import PolicyEngine


def _install(_: Cluster, __: Choice[Any]) -> Installation:
    return Installation()


ENGINE = PolicyEngine(
    AddOn(
        name="none",
        package=__package__,
        upstream="",
        summary="policies are accepted and have no effect",
        # A lab file that is written out with all defaults has a backend; this one means nothing.
        backends=(Backend("none", None),),
        install=_install,
    ),
    kinds=(),
)
