"""exec, attach and port-forward over both protocols, on loopback, with real processes behind."""

import asyncio
import json
import os
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kubewire.components.kubelet.streaming import numbered, server, spdy
from kubewire.components.kubelet.streaming.spdy_streams import SpdyStreams
from kubewire.components.kubelet.streaming.target import TargetError
from kubewire.components.kubelet.streaming.upgrade import protocol_factory


class LocalSession:
    """A process of this machine as an ExecSession."""

    def __init__(self, argv: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            list(argv),
            stdin=pipe if stdin else subprocess.DEVNULL,
            stdout=pipe if stdout else subprocess.DEVNULL,
            stderr=pipe if stderr else subprocess.DEVNULL,
        )
        self.sizes: list[tuple[int, int]] = []
        self.closed = asyncio.Event()
        ends = (self._process.stdin, self._process.stdout, self._process.stderr)
        self.stdin, self.stdout, self.stderr = (os.dup(end.fileno()) if end else -1 for end in ends)
        for end in filter(None, ends):
            end.close()
        for descriptor in (self.stdin, self.stdout, self.stderr):
            if descriptor >= 0:
                os.set_blocking(descriptor, False)

    def close_stdin(self) -> None:
        os.close(self.stdin)
        self.stdin = -1

    async def wait(self) -> int:
        return await asyncio.to_thread(self._process.wait)

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for descriptor in (self.stdin, self.stdout, self.stderr):
            if descriptor >= 0:
                os.close(descriptor)
        self.closed.set()


class LocalTarget:
    """Every pod is this machine."""

    def __init__(self) -> None:
        self.sessions: list[LocalSession] = []
        self.asked: list[tuple[str, ...]] = []

    async def exec(
        self, namespace: str, pod: str, container: str, argv: Sequence[str], *, tty: bool, **streams: bool
    ) -> LocalSession:
        self.asked.append((namespace, pod, container, *argv))
        if pod == "missing":
            raise TargetError(404, f'pods "{pod}" not found')
        if argv[0] == "nonesuch":
            raise TargetError(500, 'exec: "nonesuch": executable file not found in $PATH')
        self.sessions.append(LocalSession(argv, **streams))
        return self.sessions[-1]

    async def attach(self, namespace: str, pod: str, container: str, *, tty: bool, **streams: bool) -> LocalSession:
        return await self.exec(namespace, pod, container, ["cat"], tty=tty, **streams)

    async def port_connect(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)


@asynccontextmanager
async def kubelet(target: LocalTarget) -> AsyncIterator[int]:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        assert isinstance(request, web.Request)
        return await server.websocket(request, target)

    async def on_spdy(request: Any, reader: Any, writer: Any) -> None:
        await server.spdy(request, reader, writer, target)

    application = web.Application()
    application.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.01)
    await runner.setup()
    assert runner.server is not None
    listening = await asyncio.get_running_loop().create_server(protocol_factory(runner.server, on_spdy), "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await runner.cleanup()


class SpdyClient:
    """As kubectl of Debian 12: POST with Upgrade: SPDY/3.1, then streams."""

    def __init__(self) -> None:
        self.connection = spdy.Connection()
        self.received: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self._next = 1

    async def connect(self, port: int, path: str, protocol: str = "v4.channel.k8s.io") -> bytes:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.writer.write(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"X-Stream-Protocol-Version: {protocol}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        return await self.reader.readuntil(b"\r\n\r\n")

    def open(self, kind: str, **headers: str) -> int:
        number, self._next = self._next, self._next + 2
        self.writer.write(self.connection.open(number, {"streamType": kind, **headers}))
        self.received[number] = b""
        return number

    def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        self.writer.write(self.connection.data(stream, data, fin=fin))

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():
                data = await self.reader.read(65536)
                assert data, "the server closed the connection"
                for event in self.connection.receive(data):
                    if isinstance(event, spdy.DataReceived):
                        self.received[event.stream] += event.data
                        if event.fin:
                            self.ended.add(event.stream)


def run(body: Callable[[LocalTarget, int], Awaitable[None]]) -> None:
    async def whole() -> None:
        target = LocalTarget()
        async with kubelet(target) as port, asyncio.timeout(20):
            await body(target, port)

    asyncio.run(whole())


def test_spdy_exec_carries_stdin_stdout_stderr_and_the_exit_code() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        client = SpdyClient()
        query = "command=sh&command=-c&command=cat;echo oops >%262;exit 3&input=1&output=1&error=1".replace(" ", "%20")
        query = query.replace(";", "%3B")
        head = await client.connect(port, f"/exec/default/pod-a/app?{query}")
        assert b"101 Switching Protocols" in head and b"X-Stream-Protocol-Version: v4.channel.k8s.io" in head
        error, stdin, stdout, stderr = (client.open(kind) for kind in ("error", "stdin", "stdout", "stderr"))
        client.send(stdin, b"over the wire", fin=True)
        await client.until(lambda: {error, stdout, stderr} <= client.ended)
        assert client.received[stdout] == b"over the wire"
        assert client.received[stderr] == b"oops\n"
        status = json.loads(client.received[error])
        assert status["reason"] == "NonZeroExitCode"
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
        assert target.asked[0][:3] == ("default", "pod-a", "app")
        await asyncio.wait_for(target.sessions[0].closed.wait(), 10)

    run(body)


def test_spdy_to_a_pod_that_is_not_there_is_an_http_answer() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        head = await SpdyClient().connect(port, "/exec/default/missing/app?command=ls&output=1")
        assert head.startswith(b"HTTP/1.1 404")

    run(body)


def test_a_protocol_version_nobody_speaks_is_refused() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        head = await SpdyClient().connect(port, "/exec/default/a/app?command=ls&output=1", "v9.channel.k8s.io")
        assert head.startswith(b"HTTP/1.1 403")

    run(body)


def test_a_client_that_goes_away_ends_its_process() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        client = SpdyClient()
        await client.connect(port, "/exec/default/pod-a/app?command=sleep&command=60&output=1")
        client.open("error")
        stdout = client.open("stdout")
        client.send(stdout, b"")
        await client.writer.drain()
        client.writer.transport.abort()
        await asyncio.wait_for(target.sessions[0].closed.wait(), 10)

    run(body)


async def websocket_exec(port: int, query: str, protocol: str, script: Any) -> dict[int, bytes]:
    received: dict[int, bytes] = {}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{port}/exec/default/pod-a/app?{query}", protocols=[protocol]) as socket,
    ):
        assert socket.protocol == protocol
        await script(socket)
        async for message in socket:
            received[message.data[0]] = received.get(message.data[0], b"") + message.data[1:]
    return received


def test_websocket_v5_exec_closes_stdin_by_channel_255() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        async def script(socket: aiohttp.ClientWebSocketResponse) -> None:
            await socket.send_bytes(b"\x00ping")
            await socket.send_bytes(b"\xff\x00")

        received = await websocket_exec(port, "command=cat&stdin=true&stdout=true", "v5.channel.k8s.io", script)
        assert received[1] == b"ping"
        assert json.loads(received[3]) == {"metadata": {}, "status": "Success"}

    run(body)


def test_a_command_that_is_not_there_is_said_on_the_error_channel() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        async def script(_: aiohttp.ClientWebSocketResponse) -> None:
            pass

        received = await websocket_exec(port, "command=nonesuch&stdout=true", "v4.channel.k8s.io", script)
        assert "executable file not found in $PATH" in json.loads(received[3])["message"]

    run(body)


def test_a_refused_spdy_upgrade_is_plain_text() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        client = SpdyClient()
        head = await client.connect(port, "/exec/default/missing/app?command=cat&output=1")
        assert head.startswith(b"HTTP/1.1 404 ") and b"Content-Type: text/plain" in head
        assert await client.reader.read() == b'pods "missing" not found'

    run(body)


def test_a_terminals_size_reaches_the_session() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        async def script(socket: aiohttp.ClientWebSocketResponse) -> None:
            await socket.send_bytes(b"\x04" + json.dumps({"Width": 0, "Height": 0}).encode())  # no size: nothing
            await socket.send_bytes(b"\x04" + json.dumps({"Width": 132, "Height": 43}).encode())
            await socket.send_bytes(b"\xff\x00")

        await websocket_exec(port, "command=cat&stdin=true&stdout=true&tty=true", "v5.channel.k8s.io", script)
        assert target.sessions[0].sizes == [(43, 132)]

    run(body)


def test_a_connection_stays_until_its_client_has_answered_the_close_frame() -> None:
    """Otherwise clients such as aiohttp's report code 1006, a lost connection."""

    async def body(target: LocalTarget, port: int) -> None:
        url = f"http://127.0.0.1:{port}/exec/default/a/b?command=true&output=1"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=["v4.channel.k8s.io"], autoclose=False) as socket,
        ):
            while (await socket.receive()).type != aiohttp.WSMsgType.CLOSE:
                pass
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not target.sessions[0].closed.is_set()
            await socket.close()
        await asyncio.wait_for(target.sessions[0].closed.wait(), 60)

    run(body)


def test_a_quick_command_ends_after_its_client_has_said_the_terminals_size() -> None:
    """kubectl logs an error on the terminal if the connection is closed before."""

    async def body(target: LocalTarget, port: int) -> None:
        url = f"http://127.0.0.1:{port}/exec/default/a/b?command=true&output=1&tty=1"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=["v5.channel.k8s.io"]) as socket,
        ):
            assert await socket.receive_bytes() == b"\x01"
            await asyncio.to_thread(target.sessions[0]._process.wait)
            await socket.send_bytes(b"\x04" + json.dumps({"Width": 132, "Height": 43}).encode())
            assert (await socket.receive_bytes())[:1] == b"\x03"
        await asyncio.wait_for(target.sessions[0].closed.wait(), 10)
        assert target.sessions[0].sizes == [(43, 132)]

    run(body)


async def echo_server() -> asyncio.Server:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"pod says " + await reader.read())
        writer.close()

    return await asyncio.start_server(echo, "127.0.0.1", 0)


def test_port_forward_carries_several_connections_at_once_and_tells_errors() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        listening = await echo_server()
        pod_port = str(listening.sockets[0].getsockname()[1])
        client = SpdyClient()
        head = await client.connect(port, "/portForward/default/pod-a", "portforward.k8s.io")
        assert b"101" in head
        pairs = []
        for number in range(3):
            request = {"port": pod_port if number < 2 else "1", "requestID": str(number)}
            pairs.append((client.open("error", **request), client.open("data", **request)))
        for number in range(2):
            client.send(pairs[number][1], f"hello {number}".encode(), fin=True)
        await client.until(lambda: {stream for pair in pairs for stream in pair} <= client.ended)
        assert [client.received[data] for _, data in pairs[:2]] == [b"pod says hello 0", b"pod says hello 1"]
        assert client.received[pairs[2][0]].startswith(b"error forwarding port 1 to pod pod-a")
        client.writer.close()
        listening.close()

    run(body)


def test_port_forward_is_tunnelled_through_websocket_messages() -> None:
    async def body(target: LocalTarget, port: int) -> None:
        listening = await echo_server()
        request = {"port": str(listening.sockets[0].getsockname()[1]), "requestID": "0"}
        codec = spdy.Connection()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"http://127.0.0.1:{port}/portForward/default/pod-a", protocols=[server.PORTFORWARD_TUNNEL]
            ) as socket,
        ):
            await socket.send_bytes(codec.open(1, {"streamType": "error", **request}))
            await socket.send_bytes(codec.open(3, {"streamType": "data", **request}) + codec.data(3, b"hi", fin=True))
            seen = b""
            while not seen.endswith(b"hi"):
                message = await socket.receive_bytes()
                seen += b"".join(e.data for e in codec.receive(message) if isinstance(e, spdy.DataReceived))
        assert seen == b"pod says hi"
        listening.close()

    run(body)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/exec/default", {}, 404),
        ("/exec/default/a/app", {"output": ["1"]}, 400),
        ("/exec/default/a/app", {"command": ["ls"]}, 400),
        ("/nonesuch/default/a", {}, 404),
    ],
)
def test_a_request_that_lacks_something_is_refused(path: str, query: dict[str, list[str]], status: int) -> None:
    with pytest.raises(TargetError) as caught:
        server.parse(path, query)
    assert caught.value.status == status


def test_a_descriptor_is_closed_once() -> None:
    """After the end of stdin its number is somebody else's."""

    async def body(target: LocalTarget, port: int) -> None:
        client = SpdyClient()
        await client.connect(port, "/exec/ns/pod/c?command=sleep&command=1&input=1&output=1")
        error, stdin = client.open("error"), client.open("stdin")
        client.open("stdout")
        client.send(stdin, b"", fin=True)
        session = None
        while session is None or session.stdin != -1:
            await asyncio.sleep(0.01)
            session = target.sessions[0] if target.sessions else None
        others = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        await client.until(lambda: error in client.ended)
        await session.closed.wait()
        for descriptor in others:
            os.close(descriptor)

    run(body)


def test_a_pod_that_does_not_read_makes_its_client_wait() -> None:
    """What is sent to it does not pile up here."""

    async def body(target: LocalTarget, port: int) -> None:
        stuck = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await stuck.wait()
            writer.close()

        listener = await asyncio.start_server(silent, "127.0.0.1", 0, limit=1024)
        there = listener.sockets[0].getsockname()[1]
        client = SpdyClient()
        await client.connect(port, "/portForward/ns/pod", "portforward.k8s.io")
        client.open("error", port=str(there), requestID="1")
        data = client.open("data", port=str(there), requestID="1")

        async def flood() -> None:
            for _ in range(30):
                client.send(data, b"x" * 1024 * 1024)
                await client.writer.drain()

        flooding = asyncio.create_task(flood())
        done, _ = await asyncio.wait([flooding], timeout=3)
        assert not done
        flooding.cancel()
        client.writer.transport.abort()
        stuck.set()
        listener.close()

    run(body)


def test_a_message_of_a_million_frames_leaves_others_their_turn() -> None:
    """Empty frames for a stream that is none, in one WebSocket message."""
    slowest = 0.0

    class Carrier:
        def __init__(self) -> None:
            self.left = [struct.pack(">IB", 99, 0) + b"\0\0\0"]

        async def receive(self) -> bytes:
            return self.left.pop() * 1_000_000 if self.left else b""

        async def send(self, data: bytes) -> None: ...
        async def close(self) -> None: ...

    async def turns() -> None:
        nonlocal slowest
        while True:
            before = time.process_time()
            await asyncio.sleep(0)
            slowest = max(slowest, time.process_time() - before)

    async def whole() -> None:
        other = asyncio.create_task(turns())
        await asyncio.sleep(0)
        await SpdyStreams(Carrier()).run()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        other.cancel()

    asyncio.run(whole())
    assert slowest < 0.1


def test_streams_of_a_connection_are_limited() -> None:
    client = spdy.Connection()
    sent: list[bytes] = []

    class Carrier:
        def __init__(self) -> None:
            self.left = [b"".join(client.open(2 * number + 1, {"a": "b"}) for number in range(5000))]

        async def receive(self) -> bytes:
            return self.left.pop() if self.left else b""

        async def send(self, data: bytes) -> None:
            sent.append(data)

        async def close(self) -> None: ...

    streams = SpdyStreams(Carrier())
    asyncio.run(streams.run())
    answers = list(client.receive(b"".join(sent)))
    refused = [event for event in answers if isinstance(event, spdy.StreamReset)]
    assert (len(answers), len(refused)) == (5000, 5000 - 4096)
    assert {event.status for event in refused} == {spdy.REFUSED_STREAM}


@pytest.mark.parametrize(
    "message", [b"[" * 100_000, b'{"Height":1e999,"Width":1}', b'{"Height":70000,"Width":1}', b"x"]
)
def test_a_size_that_is_none_is_ignored(message: bytes) -> None:
    async def body(target: LocalTarget, port: int) -> None:
        url = f"http://127.0.0.1:{port}/exec/ns/pod/c?command=cat&input=1&output=1&tty=1"
        async with aiohttp.ClientSession() as http, http.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            await socket.send_bytes(b"\x04" + message)
            await socket.send_bytes(b"\x04" + b'{"Height":24,"Width":80}')
            await socket.send_bytes(b"\x00hello")
            received = b""
            while b"hello" not in received:
                received += (await socket.receive_bytes())[1:]
            assert target.sessions[0].sizes == [(24, 80)]

    run(body)


@pytest.mark.parametrize("key", ["", "AAAA", "\u00b5" * 12], ids=["none", "short", "no ASCII"])
def test_nothing_is_started_for_a_handshake_that_is_none(key: str) -> None:
    async def body(target: LocalTarget, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            "GET /exec/ns/pod/c?command=cat&input=1&output=1 HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        assert target.sessions == []

    run(body)


@pytest.mark.parametrize(
    ("protocol", "sent", "received"),
    [
        ("v5.channel.k8s.io", b"\x00ping", b"\x01ping"),
        ("v4.channel.k8s.io", b"\x00ping", b"\x01ping"),
        ("channel.k8s.io", b"\x00ping", b"\x01ping"),
        ("", b"\x00ping", b"\x01ping"),
        ("v4.base64.channel.k8s.io", "0cGluZw==", "1cGluZw=="),
        ("base64.channel.k8s.io", "0cGluZw==", "1cGluZw=="),
        ("base64.channel.k8s.io", "0no base64|0cGluZw==", "1cGluZw=="),
    ],
)
def test_exec_speaks_every_protocol_of_channels(protocol: str, sent: bytes | str, received: bytes | str) -> None:
    async def body(target: LocalTarget, port: int) -> None:
        url = f"http://127.0.0.1:{port}/exec/default/pod-a/app?command=head&command=-c4&input=1&output=1"
        offered = [protocol] if protocol else []
        async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=offered) as socket:
            assert (socket.protocol or "") == protocol
            ready = await socket.receive()
            assert ready.data == ("1" if isinstance(received, str) else b"\x01")
            for message in sent.split("|") if isinstance(sent, str) else [sent]:
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
            assert (await socket.receive()).data == received
            ending = await socket.receive()
            if protocol.startswith("v"):  # before v4, nothing is said of a success
                text = ending.data if isinstance(ending.data, str) else ending.data.decode("latin-1")
                assert text[0] in ("\x03", "3")
                ending = await socket.receive()
            assert (ending.type, ending.data) == (aiohttp.WSMsgType.CLOSE, 1000)

    run(body)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("channel.k8s.io", b"\x03command terminated with non-zero exit code: command terminated with exit code 3"),
        ("v4.channel.k8s.io", b'"reason": "NonZeroExitCode"'),
    ],
)
def test_the_error_channel_says_a_failure_in_the_protocols_form(protocol: str, said: bytes) -> None:
    async def body(target: LocalTarget, port: int) -> None:
        url = f"http://127.0.0.1:{port}/exec/default/a/b?command=sh&command=-c&command=exit+3&output=1"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=[protocol]) as socket:
            assert await socket.receive_bytes() == b"\x01"
            assert said in await socket.receive_bytes()

    run(body)


@pytest.mark.parametrize("path", ["exec/default/a/b?command=ls&output=1", "portForward/default/a?port=80"])
def test_a_protocol_of_websockets_that_nobody_speaks_is_refused(path: str) -> None:
    async def body(target: LocalTarget, port: int) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"http://127.0.0.1:{port}/{path}", protocols=["v9.channel.k8s.io"]),
            ):
                pass
        assert refused.value.status == 403
        assert target.asked == []

    run(body)


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), ("?port=", 400), ("?port=0", 400), ("?port=70000", 400), ("?port=http", 400)]
)
def test_port_forward_without_channels_for_its_ports_is_refused(query: str, status: int) -> None:
    async def body(target: LocalTarget, port: int) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"http://127.0.0.1:{port}/portForward/ns/a{query}", protocols=["v4.channel.k8s.io"]),
            ):
                pass
        assert refused.value.status == status

    run(body)


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
def test_port_forward_has_two_channels_for_each_port(protocol: str) -> None:
    """Both say the port first; the one with the even number carries data, the other errors."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(5)).upper())
        writer.close()

    async def body(target: LocalTarget, port: int) -> None:
        listening = await asyncio.start_server(shout, "127.0.0.1", 0)
        there = listening.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/portForward/default/pod-a?port=1,{there}"
        received: dict[int, bytes] = {}
        text = "base64" in protocol
        async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=[protocol]) as socket:
            hello = numbered.encode(2, b"hello", text=text)
            await (socket.send_str(hello) if isinstance(hello, str) else socket.send_bytes(hello))
            async for message in socket:
                assert isinstance(message.data, str) == text
                data = message.data.encode() if text else message.data
                decoded = numbered.decode(data, text=text)
                assert decoded is not None
                received[decoded[0]] = received.get(decoded[0], b"") + decoded[1]
        listening.close()
        assert received[0] == (1).to_bytes(2, "little")
        assert received[1].startswith((1).to_bytes(2, "little") + b"error forwarding port 1 to pod pod-a")
        assert received[2] == there.to_bytes(2, "little") + b"HELLO"
        assert received[3] == there.to_bytes(2, "little")

    run(body)
