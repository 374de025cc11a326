"""Azure NPM's chains on packets: pods routed by a node, every truth table as a matrix of connections."""

from __future__ import annotations

import pytest

from kubewire.components.policy.applier import Applier
from kubewire.components.policy.engines.azure_npm import names
from kubewire.components.policy.engines.azure_npm.render import render
from kubewire.components.policy.model import State
from tests.components.networks.flows import Hosts
from tests.components.policy import truth
from tests.components.policy.ground import Ground
from tests.components.policy.matrix import PORTS
from tests.components.policy.packets import HOSTS, failures
from tests.scratch import isolated

CASES = [case for case in truth.CASES if not case.requires]


def ground() -> Ground:
    """A node that routes between its pods, each at the other end of a veth."""
    addresses = {host: f"10.240.0.{number}" for number, host in enumerate(HOSTS.values(), start=11)}
    hosts = Hosts("node", *addresses)
    hosts.sysctl("node", "net.ipv4.ip_forward=1")
    for number, (pod, address) in enumerate(addresses.items()):
        hosts.wire("node", f"azv{number}", pod, "eth0")
        hosts.sysctl("node", f"net.ipv4.conf.azv{number}.proxy_arp=1")
        hosts.ip("node", f"route add {address}/32 dev azv{number}")
        hosts.ip(pod, f"address add {address}/32 dev eth0", "route add default dev eth0")
    return Ground(hosts, addresses, [(protocol, port) for port, protocol in PORTS])


@pytest.mark.packet
@pytest.mark.parametrize("part", [0, 1])
def test_every_truth_table(part: int) -> None:
    assert isolated(_failures, part, timeout=250) == {}


def _failures(part: int) -> dict[str, str]:
    applier = Applier(names.SET_PREFIX)

    async def enforce(state: State) -> None:
        rendered = render(state)
        await applier.apply(rendered.ruleset, rendered.sets)

    with ground().listening() as place:
        return failures(place, "node", enforce, CASES[part::2])
