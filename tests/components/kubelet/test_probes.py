"""Probe thresholds, and each kind of probe against a real server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from kubewire.components.kubelet.probes import actions, grpc
from kubewire.components.kubelet.probes.http import HttpTarget, ProbeResult, target
from kubewire.components.kubelet.probes.state import ProbeSpec, begin, observe
from kubewire.components.kubelet.probes.worker import RELIST_PERIOD, Prober
from kubewire.components.kubelet.records import ContainerRecord


def verdicts(kind: str, results: str, probe: Any) -> str:
    """Of a series of results (S, F) the verdict after each: T, F or - for none."""
    spec = ProbeSpec.of(kind, probe)
    state = begin(spec)
    shown = ""
    for result in results:
        state = observe(spec, state, result == "S")
        shown += {True: "T", False: "F", None: "-"}[state.verdict]
    return shown


@pytest.mark.parametrize(
    ("kind", "results", "probe", "expected"),
    [
        ("readiness", "S", {}, "T"),
        ("readiness", "SFFF", {}, "TTTF"),
        ("readiness", "SFFSFF", {}, "TTTTTT"),
        ("readiness", "SFFFSSS", {"successThreshold": 2}, "FFFFFTT"),
        ("liveness", "FF", {}, "TT"),
        ("liveness", "FFFS", {}, "TTFF"),
        ("startup", "FFS", {}, "--T"),
        ("startup", "FFF", {}, "--F"),
    ],
    ids=[
        "one success is enough",
        "three failures in a row",
        "a success begins the count anew",
        "successThreshold",
        "liveness is alive until proven otherwise",
        "a killed container is on hold until the next",
        "startup has no verdict before",
        "startup fails",
    ],
)
def test_thresholds(kind: str, results: str, probe: dict[str, int], expected: str) -> None:
    assert verdicts(kind, results, probe) == expected


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({}, "http://10.1.1.1:80/"),
        ({"path": "healthz?x=1"}, "http://10.1.1.1:80/healthz?x=1"),
        ({"scheme": "HTTPS", "host": "h.example", "path": "/a"}, "https://h.example:80/a"),
    ],
)
def test_the_url_of_an_http_probe(action: Any, expected: str) -> None:
    assert target(action, "10.1.1.1", 80).url == expected


def test_headers_of_the_probe_win_over_ours() -> None:
    action: Any = {"httpHeaders": [{"name": "user-agent", "value": "mine"}, {"name": "Accept", "value": ""}]}
    headers = target(action, "10.1.1.1", 80).headers
    assert headers["User-Agent"] == "mine" and "Accept" not in headers
    assert target({}, "10.1.1.1", 80).headers["User-Agent"] == "kube-probe/1.36"


def test_named_ports() -> None:
    container: Any = {"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}
    assert actions.port_number("web", container) == 8080
    assert actions.port_number("81", container) == 81
    with pytest.raises(actions.PortError, match='couldn\'t find port: "x"'):
        actions.port_number("x", container)


async def no_exec(argv: list[str], timeout: float) -> tuple[int, bytes]:
    raise AssertionError("no exec expected")


async def probed(handler: Any, timeout: float = 1.0, execute: actions.Exec = no_exec) -> ProbeResult:
    spec = ProbeSpec.of("readiness", handler | {"timeoutSeconds": timeout})
    connector = aiohttp.TCPConnector(ssl=False, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await actions.run(spec, {"name": "c"}, "127.0.0.1", session, execute)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def against(answer: Answer, probe: Callable[[int], Awaitable[ProbeResult]]) -> ProbeResult:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await probe(server.sockets[0].getsockname()[1])


def http_answer(head: str, body: str = "") -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()

    return answer


def http_result(answer: Answer) -> ProbeResult:
    return asyncio.run(against(answer, lambda port: probed({"httpGet": {"port": port, "path": "/z"}})))


@pytest.mark.parametrize(
    ("head", "success", "output"),
    [
        ("200 OK", True, "body"),
        ("399 Odd", True, "body"),
        ("400 Bad", False, "HTTP probe failed with statuscode: 400"),
        ("500 Error", False, "HTTP probe failed with statuscode: 500"),
    ],
)
def test_http_status_codes(head: str, success: bool, output: str) -> None:
    assert http_result(http_answer(head, "body")) == ProbeResult(success, output)


def test_a_redirect_to_another_host_is_a_success_with_a_warning() -> None:
    result = http_result(http_answer("302 Found\r\nLocation: http://elsewhere.example/", "gone"))
    assert result.success and result.warning
    assert result.output == "Probe terminated redirects, Response body: gone"


def test_a_redirect_on_the_same_host_is_followed() -> None:
    answers = iter([http_answer("302 Found\r\nLocation: /other"), http_answer("503 No")])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(answers)(reader, writer)

    assert http_result(answer) == ProbeResult(False, "HTTP probe failed with statuscode: 503")


def unused_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def test_refused_connections_read_as_upstream_says() -> None:
    port = unused_port()
    http = asyncio.run(probed({"httpGet": {"port": port, "path": "/z"}}))
    assert http.output == (f'Get "http://127.0.0.1:{port}/z": dial tcp 127.0.0.1:{port}: connect: connection refused')
    tcp = asyncio.run(probed({"tcpSocket": {"port": port}}))
    assert tcp == ProbeResult(False, f"dial tcp 127.0.0.1:{port}: connect: connection refused")


def test_a_server_that_does_not_answer_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def probe(port: int) -> ProbeResult:
        return await probed({"httpGet": {"port": port}}, timeout=0.05)

    result = asyncio.run(against(silent, probe))
    assert "context deadline exceeded (Client.Timeout exceeded while awaiting headers)" in result.output


def test_a_tcp_probe_needs_only_an_open_port() -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    assert asyncio.run(against(nothing, lambda port: probed({"tcpSocket": {"port": port}}))).success


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ((0, b"fine"), ProbeResult(True, "fine")),
        ((3, b"bad"), ProbeResult(False, "bad")),
        (TimeoutError(), ProbeResult(False, 'command timed out: "a b" timed out after 1s')),
        (OSError("no such file"), ProbeResult(False, "no such file")),
    ],
    ids=["exit 0", "exit 3", "too slow", "cannot start"],
)
def test_exec_probes(outcome: tuple[int, bytes] | Exception, expected: ProbeResult) -> None:
    async def execute(argv: list[str], timeout: float) -> tuple[int, bytes]:
        assert argv == ["a", "b"]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert asyncio.run(probed({"exec": {"command": ["a", "b"]}}, execute=execute)) == expected


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def health_answer(status: int | None) -> Answer:
    """A gRPC server's frames: SETTINGS, HEADERS (:status 200 by the static table), DATA, trailers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(24)
        writer.write(frame(4, 0, 0, b""))
        if status is None:
            writer.write(frame(1, 5, 1, b"\x88"))
        else:
            message = bytes((8, status))
            writer.write(frame(1, 4, 1, b"\x88") + frame(6, 0, 0, b"12345678"))
            writer.write(frame(0, 0, 1, b"\0" + len(message).to_bytes(4, "big") + message) + frame(1, 5, 1, b"\x88"))
        await writer.drain()
        await reader.read(65536)

    return answer


@pytest.mark.parametrize(
    ("status", "success", "text"),
    [
        (1, True, "service healthy"),
        (2, False, 'service unhealthy (responded with "NOT_SERVING")'),
        (None, False, "does not implement the grpc health protocol"),
    ],
    ids=["SERVING", "NOT_SERVING", "refused without DATA"],
)
def test_grpc_probes(status: int | None, success: bool, text: str) -> None:
    result = asyncio.run(against(health_answer(status), lambda port: probed({"grpc": {"port": port}})))
    assert result.success is success and text in result.output


def test_the_grpc_request_names_the_service() -> None:
    sent = grpc.request("127.0.0.1:1", "my.Service")
    assert sent.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert sent.endswith(b"\0\0\0\0\x0c\x0a\x0amy.Service")


def test_the_target_is_a_value() -> None:
    assert target({"path": "/"}, "::1", 8080) == HttpTarget("http://[::1]:8080/", target({}, "x", 1).headers)


def first_probe(kind: str, age: float, others: dict[str, Any]) -> float:
    """Of a container started age seconds ago: its age when a command of the probe first runs."""

    async def run() -> float:
        clock = asyncio.get_running_loop().time
        started = clock() - age
        calls: asyncio.Queue[float] = asyncio.Queue()

        async def execute(argv: list[str], timeout: float) -> tuple[int, bytes]:
            if argv == [kind]:
                calls.put_nowait(clock() - started)
            return 0, b""

        prober = Prober(no_session, lambda: "", lambda record: execute, lambda: None, lambda report: None)
        container: Any = {"name": "app", f"{kind}Probe": {"exec": {"command": [kind]}}, **others}
        record = ContainerRecord("app", "c1", "", "", 0, "s1", "", 0.0, 1000.0)
        prober.start(container, record, 1000.0 + age)
        try:
            return await calls.get()
        finally:
            prober.stop_all()

    return asyncio.run(asyncio.wait_for(run(), 10))


def no_session() -> Any:
    return None


@pytest.mark.parametrize(
    ("kind", "age", "others", "least"),
    [
        ("liveness", 0.0, {}, RELIST_PERIOD),
        ("liveness", 0.0, {"startupProbe": {"exec": {"command": ["startup"]}}}, RELIST_PERIOD),
        ("liveness", 0.9, {}, RELIST_PERIOD),
        ("liveness", 5.0, {}, 5.0),
        ("readiness", 0.0, {}, 0.0),
    ],
    ids=["new", "after a startup probe", "nearly a second old", "adopted", "readiness"],
)
def test_a_liveness_probe_gives_a_container_the_time_upstream_gives(
    kind: str, age: float, others: dict[str, Any], least: float
) -> None:
    """A process that is killed before it has begun would be restarted for ever."""
    assert first_probe(kind, age, others) >= least
