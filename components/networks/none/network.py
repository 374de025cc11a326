"""The descriptor of `plugin: none`: nothing is installed, and nodes stay NotReady until the user
installs a network."""

from __future__ import annotations

from typing import Any

from kubewire.components.addon import AddOn, Backend, Choice, Cluster, Installation
from kubewire.components.networks.podnetwork import PodNetwork


def _install(_: Cluster, __: Choice[Any]) -> Installation:
    return Installation()


NETWORK = PodNetwork(
    AddOn(
        name="none",
        package=__package__,
        upstream="",
        summary="no network: nodes stay NotReady until somebody installs one",
        # A lab file that is written out with all defaults has a backend; this one means nothing.
        backends=(Backend("vxlan", None),),
        install=_install,
    ),
    connects_pods=False,
)
