"""Tests with packets need other people's routers."""

import pytest

from tests.components.bgp import routers


@pytest.fixture(autouse=True)
def routers_at_hand(request):
    if request.node.get_closest_marker("packet") and not routers.unpacked():
        pytest.skip("Debian's bird2, frr and gobgpd cannot be downloaded")
