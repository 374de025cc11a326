"""healthCheckNodePort: who is counted, what is answered, which ports are open."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import aiohttp

from kubewire.components.kube_proxy.service_health import ServiceHealth, answer, local_ready, ports_of
from kubewire.components.kube_proxy.state.model import Endpoint, ServicePort, ServicePortName

WEB, API = ServicePortName("ns", "web", "http"), ServicePortName("ns", "api", "")
BALANCED = ServicePort("10.96.0.1", 80, "tcp", external_local=True, health_check_node_port=31234)
PLAIN = ServicePort("10.96.0.2", 80, "tcp")


def test_only_services_with_a_health_check_port_are_served():
    assert ports_of([{WEB: BALANCED, API: PLAIN}]) == {("ns", "web"): 31234}


def test_ready_local_addresses_are_counted_once_over_ports_and_families():
    here, there = Endpoint("10.244.1.1", 80, "n1"), Endpoint("10.244.2.1", 80, "n2")
    draining = Endpoint("10.244.1.2", 80, "n1", ready=False, terminating=True)
    other_port = ServicePortName("ns", "web", "metrics")
    v4 = {WEB: (here, there, draining), other_port: (Endpoint("10.244.1.1", 90, "n1"),), API: (here,)}
    v6 = {WEB: (Endpoint("fd00::1", 80, "n1"),)}
    assert local_ready([v4, v6], {("ns", "web")}, "n1") == {("ns", "web"): 1}


def test_the_answer_is_upstreams_byte_for_byte():
    status, headers, body = answer(("ns", "web"), 2, True)
    assert (status, headers["X-Load-Balancing-Endpoint-Weight"]) == (200, "2")
    assert (headers["Content-Type"], headers["X-Content-Type-Options"]) == ("application/json", "nosniff")
    assert body == (
        '{\n\t"service": {\n\t\t"namespace": "ns",\n\t\t"name": "web"\n\t},\n'
        '\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}'
    )
    assert answer(("ns", "web"), 0, True)[0] == 503
    assert answer(("ns", "web"), 2, False)[0] == 503


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_ports_open_move_close_and_say_when_they_cannot():
    key, other = ("ns", "web"), ("ns", "other")
    healthy, failures = [True], []

    async def ask(port: int) -> tuple[int, dict[str, Any]]:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/any") as response:
                return response.status, json.loads(await response.text())
        except aiohttp.ClientConnectorError:
            return 0, {}

    async def scenario() -> None:
        first, second = free_port(), free_port()
        servers = ServiceHealth("n1", lambda: healthy[0], lambda: ("127.0.0.1",), lambda *why: failures.append(why))
        await servers.sync({key: first}, {})
        assert (await ask(first))[0] == 503
        await servers.sync({key: first}, {key: 3})
        assert await ask(first) == (
            200, {"service": {"namespace": "ns", "name": "web"}, "localEndpoints": 3, "serviceProxyHealthy": True}
        )  # fmt: skip
        healthy[0] = False
        assert (await ask(first))[0] == 503
        await servers.sync({key: second}, {key: 3})
        assert (await ask(first))[0] == 0
        assert (await ask(second))[1]["localEndpoints"] == 3
        await servers.sync({key: second, other: second}, {})
        assert [who for who, _ in failures] == [other]
        assert failures[0][1].startswith(f'node n1 failed to start healthcheck "ns/other" on port {second}: ')
        await servers.sync({other: second}, {other: 1})
        assert (await ask(second))[1]["service"]["name"] == "other"
        await servers.close()
        assert (await ask(second))[0] == 0

    asyncio.run(scenario())
