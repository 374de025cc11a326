"""The descriptor of a policy engine: an add-on that makes the kernel of every node enforce network
policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from kubewire.components.addon import AddOn, Host, Mode, Process, Role, kubeconfig_path


@dataclass(frozen=True)
class PolicyEngine(Generic[Mode]):
    """The descriptor that components/policy/engines/NAME/engine.py exports as ENGINE.

    networks: the pod networks that it works with, empty for all. default_for: those whose upstream
    ships it switched on. kinds: the kinds of policies that it enforces, as the compiler names them
    (ObjectKey.kind); policies of other kinds have no effect with it.
    """

    addon: AddOn[Mode]
    kinds: tuple[str, ...]
    networks: tuple[str, ...] = ()
    default_for: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.addon.name

    def works_with(self, network: str) -> bool:
        """Whether it works with a pod network, by the network's name."""
        return not self.networks or network in self.networks


def agent(package: str, name: str, node: Host, account: str, *arguments: str) -> Process:
    """The agent of an engine on a node: main() of the package's main.py, with its kubeconfig.
    account: its ServiceAccount in kube-system."""
    return Process(
        role=Role.AGENT,
        host=node.name,
        name=name,
        main=f"{package}.main:main",
        arguments=(f"--kubeconfig={kubeconfig_path(name)}", *arguments),
        user=f"system:serviceaccount:kube-system:{account}",
    )
