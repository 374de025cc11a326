"""What is answered when a Service names a node port twice (allocation comes before validation)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.fuzz.apiserver.in_process import InProcess, in_process

SERVICES = "/api/v1/namespaces/default/services"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("apiserver")) as running:
        yield running


def service(name: str, *ports: tuple[int, int, str]) -> dict[str, Any]:
    listed = [
        {"name": f"p{index}", "port": port, "nodePort": node_port, "protocol": protocol}
        for index, (port, node_port, protocol) in enumerate(ports)
    ]
    return {"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": listed}}


def test_a_new_service_cannot_take_a_port_twice(api: InProcess) -> None:
    answer = api.create(SERVICES, service("new", (80, 30080, "TCP"), (81, 30080, "TCP")))
    text = "spec.ports[1].nodePort: Invalid value: 30080: provided port is already allocated"
    assert (answer.code, answer.body["message"]) == (422, f'Service "new" is invalid: {text}')


def test_one_number_for_two_protocols(api: InProcess) -> None:
    assert api.create(SERVICES, service("both", (80, 30081, "TCP"), (80, 30081, "UDP"))).code == 201


def test_an_update_with_a_port_twice_is_an_error_without_a_reason(api: InProcess) -> None:
    assert api.create(SERVICES, service("old", (80, 30082, "TCP"))).code == 201
    changed = service("old", (80, 30082, "TCP"), (81, 30082, "TCP"))
    answer = api("PUT", f"{SERVICES}/old", orjson.dumps(changed))
    assert (answer.code, answer.body["message"]) == (500, "duplicate nodePort: {TCP 30082}")
    assert not answer.body.get("reason")
