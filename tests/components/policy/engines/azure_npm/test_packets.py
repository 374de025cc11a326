"""Azure NPM's chains on packets: pods routed by a node, every truth table as a matrix of connections."""

from __future__ import annotations

import pytest

from kubewire.components.policy.applier import Applier
from kubewire.components.policy.engines.azure_npm import names
from kubewire.components.policy.engines.azure_npm.render import render
from kubewire.components.policy.model import State
from tests.components.policy import truth
from tests.components.policy.packets import failures, routed
from tests.scratch import isolated

CASES = [case for case in truth.CASES if not case.requires]


@pytest.mark.packet
@pytest.mark.parametrize("part", [0, 1])
def test_every_truth_table(part: int) -> None:
    assert isolated(_failures, part, timeout=250) == {}


def _failures(part: int) -> dict[str, str]:
    applier = Applier(names.SET_PREFIX)

    async def enforce(state: State) -> None:
        rendered = render(state)
        await applier.apply(rendered.ruleset, rendered.sets)

    with routed("10.240.0", "azv").listening() as place:
        return failures(place, "node", enforce, CASES[part::2])
