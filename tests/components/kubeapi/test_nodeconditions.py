"""The condition that a pod network writes."""

import re

from kubewire.components.kubeapi.nodeconditions import network_available


def test_the_networks_condition_is_one_with_a_reason_and_the_time():
    (condition,) = network_available("FlannelIsUp", "Flannel is running on this node")["status"]["conditions"]
    times = condition.pop("lastHeartbeatTime"), condition.pop("lastTransitionTime")
    assert condition == {
        "type": "NetworkUnavailable",
        "status": "False",
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
    }
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text) for text in times)
