"""exec, logs and proxies against a kubelet that the test plays."""

from __future__ import annotations

import asyncio
import json
import ssl
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError

from kubewire.components.apiserver.http.connectnames import container_of, stream_parameters
from kubewire.components.apiserver.status import StatusError
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import NODES, PODS
from tests.components.apiserver.conftest import Run
from tests.components.apiserver.running import RunningApiServer

Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Kubelet:
    """A TLS server on 127.0.0.1 that demands the API server's client certificate."""

    def __init__(self, server: RunningApiServer, handler: Handler) -> None:
        issued = server.authority.issue("system:node:fake", addresses=("127.0.0.1",))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.certificate, issued.key)
        self._context.load_verify_locations(server.authority.certificate)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._handler = handler
        self.heads: list[str] = []
        self.clients: list[str] = []

    async def __aenter__(self) -> Kubelet:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        subject = dict(pair for part in writer.get_extra_info("peercert")["subject"] for pair in part)
        self.clients.append(subject["commonName"])
        await self._handler(head, reader, writer)
        writer.close()


async def pod_on(client: Client, name: str, kubelet: Kubelet) -> None:
    node, at = f"node-{name}", {"Port": kubelet.port}
    host: Any = {"metadata": {"name": node}}
    await client.create(NODES, host)
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    status = {"status": {"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": at}}}
    await client.patch(NODES, node, status, subresource="status")
    containers = [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]
    obj: Any = {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": containers},
    }
    await client.create(PODS, obj)


async def switch_and_shout(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    protocol = next(line for line in head.decode().split("\r\n") if line.lower().startswith("upgrade:"))
    writer.write(
        f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{protocol}\r\nX-Kept: yes\r\n\r\n".encode()
    )
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()


async def dial(server: RunningApiServer, client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port, ssl=client.credentials.ssl_context(), limit=1 << 20)


@pytest.mark.parametrize(("method", "protocol"), [("POST", "SPDY/3.1"), ("GET", "websocket")])
def test_exec_tunnels_the_upgraded_bytes_both_ways(
    server: RunningApiServer, run: Run, method: str, protocol: str
) -> None:
    async def act(client: Client) -> None:
        name = f"exec-{method.lower()}"
        async with Kubelet(server, switch_and_shout) as kubelet:
            await pod_on(client, name, kubelet)
            reader, writer = await dial(server, client)
            path = f"/api/v1/namespaces/default/pods/{name}/exec"
            query = "container=b&command=sh&command=-c&command=echo+hi&stdin=true&stdout=true&tty=true"
            writer.write(
                f"{method} {path}?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
                "Authorization: \r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            assert head.startswith("HTTP/1.1 101 ")
            assert "X-Kept: yes" in head
            sent = b"a" * 3_000_000
            writer.write(sent)
            assert await reader.readexactly(len(sent)) == sent.upper()
            writer.close()
        request = kubelet.heads[0]
        expected = (
            f"{method} /exec/default/{name}/b?input=1&output=1&tty=1&command=sh&command=-c&command=echo+hi HTTP/1.1"
        )
        assert request.startswith(expected)
        assert "X-Stream-Protocol-Version: v4.channel.k8s.io" in request
        assert "Authorization" not in request
        assert kubelet.clients == ["kube-apiserver-kubelet-client"]

    run(act)


def test_a_kubelet_that_refuses_the_upgrade_is_heard(server: RunningApiServer, run: Run) -> None:
    async def refuse(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 20\r\n\r\ncontainer not found\n")

    async def act(client: Client) -> None:
        async with Kubelet(server, refuse) as kubelet:
            await pod_on(client, "refused", kubelet)
            headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
            path = "/api/v1/namespaces/default/pods/refused/portforward?ports=8080"
            with pytest.raises(ApiError) as error:
                await client.request("POST", path, headers=headers)
        assert (error.value.status, error.value.message) == (404, "container not found\n")
        assert kubelet.heads[0].startswith("POST /portForward/default/refused?port=8080 HTTP/1.1")

    run(act)


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (400, "BadRequest", 'container "a" in pod "p" is waiting to start: ContainerCreating'),
        (500, "InternalError", 'Internal error occurred: container "a" in pod "p" is waiting to start: '
                               "ContainerCreating"),
        (404, "NotFound", "the server could not find the requested resource ( pods/log refused-log-404)"),
    ],
)  # fmt: skip
def test_what_the_kubelet_says_instead_of_a_log_becomes_a_status(
    server: RunningApiServer, run: Run, code: int, reason: str, message: str
) -> None:
    async def refuse(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = b'container "a" in pod "p" is waiting to start: ContainerCreating'
        writer.write(f"HTTP/1.1 {code} No\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)

    async def act(client: Client) -> None:
        name = f"refused-log-{code}"
        async with Kubelet(server, refuse) as kubelet:
            await pod_on(client, name, kubelet)
            with pytest.raises(ApiError) as error:
                await client.request("GET", f"/api/v1/namespaces/default/pods/{name}/log?container=a")
        assert (error.value.status, error.value.reason, error.value.message) == (code, reason, message)

    run(act)


def test_a_refusal_reaches_a_websocket_client_of_v5_on_its_error_channel(server: RunningApiServer, run: Run) -> None:
    async def refuse(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 404 Not Found\r\nContent-Length: 25\r\n\r\ncontainer not found ("a")\n')

    async def act(client: Client) -> None:
        async with Kubelet(server, refuse) as kubelet:
            await pod_on(client, "refused-v5", kubelet)
            url = client.credentials.server + "/api/v1/namespaces/default/pods/refused-v5/exec"
            query = {"container": "a", "command": "ls", "stdout": "true"}
            protocols = ("v5.channel.k8s.io", "v4.channel.k8s.io")
            async with client.session().ws_connect(url, params=query, protocols=protocols) as socket:
                assert socket.protocol == "v5.channel.k8s.io"
                message = await socket.receive_bytes()
                assert message[:1] == b"\x03"
                said = json.loads(message[1:])["message"]
        assert said == 'Internal error occurred: unable to upgrade connection: container not found ("a")'

    run(act)


def test_logs_are_streamed_as_they_come(server: RunningApiServer, run: Run) -> None:
    more = asyncio.Event

    async def act(client: Client) -> None:
        goes_on = more()

        async def logs(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n"
            )
            await goes_on.wait()
            writer.write(b"7\r\nsecond\n\r\n0\r\n\r\n")
            await writer.drain()

        async with Kubelet(server, logs) as kubelet:
            await pod_on(client, "logs", kubelet)
            url = client.credentials.server + "/api/v1/namespaces/default/pods/logs/log"
            async with client.session().get(url, params={"container": "a", "follow": "true"}) as answer:
                assert await answer.content.readline() == b"first\n"
                goes_on.set()
                assert await answer.content.read() == b"second\n"
        assert kubelet.heads[0].startswith("GET /containerLogs/default/logs/a?follow=true HTTP/1.1")

    run(act)


def test_logs_of_a_pod_on_no_node_are_empty_and_exec_there_is_refused(run: Run) -> None:
    async def act(client: Client) -> None:
        spec = {"containers": [{"name": "a", "image": "i"}]}
        lost: Any = {"metadata": {"name": "lost", "namespace": "default"}, "spec": spec}
        await client.create(PODS, lost)
        path = "/api/v1/namespaces/default/pods/lost"
        assert await client.request("GET", f"{path}/log") == b""
        with pytest.raises(ApiError) as error:
            await client.request("POST", f"{path}/exec?command=ls")
        assert (error.value.status, error.value.message) == (400, "pod lost does not have a host assigned")

    run(act)


def test_a_kubelet_that_is_not_there_is_an_internal_error(server: RunningApiServer, run: Run) -> None:
    async def act(client: Client) -> None:
        async with Kubelet(server, switch_and_shout) as kubelet:
            await pod_on(client, "unreached", kubelet)
        headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
        with pytest.raises(ApiError) as error:
            await client.request(
                "POST", "/api/v1/namespaces/default/pods/unreached/attach?container=a", headers=headers
            )
        assert error.value.reason == "InternalError"
        assert "error dialing backend: dial tcp 127.0.0.1:" in error.value.message

    run(act)


def test_pods_and_nodes_are_proxied(server: RunningApiServer, run: Run) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = head.split("\r\n")[0].encode()
        writer.write(b"HTTP/1.1 418 Teapot\r\nContent-Length: %d\r\nX-From: pod\r\n\r\n%b" % (len(body), body))
        writer.close()

    async def shout(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_head(head, writer)

    async def answer_head(head: bytes, writer: asyncio.StreamWriter) -> None:
        body = head.split(b"\r\n")[0]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    async def act(client: Client) -> None:
        web = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = web.sockets[0].getsockname()[1]
        async with Kubelet(server, shout) as kubelet:
            await pod_on(client, "proxied", kubelet)
            status = {"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}
            await client.patch(PODS, "proxied", status, "default", subresource="status")
            url = f"{client.credentials.server}/api/v1/namespaces/default/pods/proxied:{port}/proxy/a%20b/?q=1&q=2"
            async with client.session().get(url) as response:
                assert response.status == 418
                assert response.headers["X-From"] == "pod"
                assert await response.text() == "GET /a%20b/?q=1&q=2 HTTP/1.1"
            metrics = await client.request("GET", "/api/v1/nodes/node-proxied/proxy/metrics")
            assert metrics == b"GET /metrics HTTP/1.1"
        web.close()

    run(act)


MALFORMED: Any = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no code": b"HTTP/1.1\r\n\r\n",
    "a code of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "an endless head": b"HTTP/1.1 404 Not Found\r\nX: " + b"x" * 600_000 + b"\r\n\r\n",
    "a length of letters": b"HTTP/1.1 404 Not Found\r\nContent-Length: x\r\n\r\n",
    "a length that fills the memory": b"HTTP/1.1 404 Not Found\r\nContent-Length: 99999999999\r\n\r\n",
    "a chunk of letters": b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_a_backend_that_answers_nonsense_is_an_error_of_its_own(
    server: RunningApiServer, run: Run, answer: bytes
) -> None:
    async def respond(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()

    async def act(client: Client) -> None:
        async with Kubelet(server, respond) as kubelet:
            name = f"nonsense-{zlib.crc32(answer)}"
            await pod_on(client, name, kubelet)
            path = f"/api/v1/namespaces/default/pods/{name}/portforward?ports=8080"
            with pytest.raises(ApiError) as error:
                async with asyncio.timeout(15):
                    await client.request("POST", path, headers={"Connection": "Upgrade", "Upgrade": "SPDY/3.1"})
        assert (error.value.status, error.value.reason) == (500, "InternalError")
        assert "error dialing backend: " in error.value.message

    before = len(server.log())
    run(act)
    assert "Traceback" not in server.log()[before:]


def test_an_answer_that_breaks_off_breaks_off(server: RunningApiServer, run: Run) -> None:
    """An error after its head would be read as a part of it."""

    async def half(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        await writer.drain()

    async def act(client: Client) -> None:
        async with Kubelet(server, half) as kubelet:
            await pod_on(client, "half", kubelet)
            reader, writer = await dial(server, client)
            writer.write(b"GET /api/v1/nodes/node-half/proxy/metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(15):
                received = await reader.read()
            writer.close()
        assert received.partition(b"\r\n\r\n")[2] == b"half"

    run(act)


@pytest.mark.parametrize("port", ["%C2%B2", "65536", "9" * 5000, "-1", "http"])
def test_a_node_is_proxied_at_a_port(server: RunningApiServer, run: Run, port: str) -> None:
    async def act(client: Client) -> None:
        with pytest.raises(ApiError) as error:
            await client.request("GET", f"/api/v1/nodes/n:{port}/proxy/metrics")
        assert (error.value.status, error.value.reason) == (400, "BadRequest")
        assert "invalid port" in error.value.message

    run(act)


def test_the_kubelet_gets_its_own_parameter_names() -> None:
    query = [("stdin", "true"), ("stdout", "true"), ("stderr", "false"), ("tty", "1"), ("command", "a b")]
    assert stream_parameters(query) == [("input", "1"), ("output", "1"), ("tty", "1"), ("command", "a b")]


POD: Any = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("x", "container x is not valid for pod p"),
        ("", "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"),
    ],
)
def test_a_container_must_be_known(asked: str, text: str) -> None:
    with pytest.raises(StatusError) as error:
        container_of(POD, asked)
    assert str(error.value) == text
    assert container_of(POD, "i") == "i"


Answer = Callable[[str], bytes]


async def web_server(answer: Answer, context: ssl.SSLContext | None = None) -> tuple[asyncio.Server, int]:
    """A backend that answers each request's head, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer((await reader.readuntil(b"\r\n\r\n")).decode()))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    return server, server.sockets[0].getsockname()[1]


def page(body: str, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def proxied_pod(client: Client, name: str, node: str = "nowhere") -> str:
    spec = {"nodeName": node, "containers": [{"name": "a", "image": "i"}]}
    pod: Any = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
    await client.create(PODS, pod)
    status = {"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}
    await client.patch(PODS, name, status, "default", subresource="status")
    return f"{client.credentials.server}/api/v1/namespaces/default/pods"


def test_a_proxy_without_a_slash_redirects(run: Run) -> None:
    async def act(client: Client) -> None:
        url = await proxied_pod(client, "slashless")
        async with client.session().get(f"{url}/slashless/proxy?a=b", allow_redirects=False) as answer:
            assert answer.status == 301
            assert answer.headers["Location"] == "/api/v1/namespaces/default/pods/slashless/proxy/?a=b"

    run(act)


def test_a_page_behind_a_proxy_has_its_links_through_it(run: Run) -> None:
    async def act(client: Client) -> None:
        def answer(head: str) -> bytes:
            heads.append(head)
            if "/old" in head:
                return page("", "Location: /new/", status="302 Found")
            return page('<a href="/x">', "Content-Type: text/html", "Access-Control-Allow-Origin: *")

        heads: list[str] = []
        backend, port = await web_server(answer)
        url = await proxied_pod(client, "paged")
        prefix = f"/api/v1/namespaces/default/pods/paged:{port}/proxy"
        async with client.session().get(f"{url}/paged:{port}/proxy/") as response:
            assert await response.text() == f'<a href="{prefix}/x">'
            assert "Access-Control-Allow-Origin" not in response.headers
        async with client.session().get(f"{url}/paged:{port}/proxy/old", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, f"{prefix}/new/")
        backend.close()
        told = dict(line.split(": ", 1) for line in heads[0].strip().split("\r\n")[1:])
        assert told["X-Forwarded-Uri"] == f"{prefix}/"
        assert told["X-Forwarded-For"] == "127.0.0.1"
        assert told["Host"] == client.credentials.server.removeprefix("https://")

    run(act)


def test_a_backend_of_https_is_not_verified_and_gets_no_certificate(server: RunningApiServer, run: Run) -> None:
    async def act(client: Client) -> None:
        issued = server.authority.issue("somebody-else", addresses=("192.0.2.1",))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        context.load_verify_locations(server.authority.certificate)
        context.verify_mode = ssl.CERT_OPTIONAL
        seen: list[Any] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            seen.append(writer.get_extra_info("peercert"))
            writer.write(page("over TLS"))
            writer.close()

        backend = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        url = await proxied_pod(client, "secure")
        port = backend.sockets[0].getsockname()[1]
        async with client.session().get(f"{url}/https:secure:{port}/proxy/") as response:
            assert await response.text() == "over TLS"
        backend.close()
        assert not seen[0]

    run(act)


def test_a_backend_that_is_not_there_is_unavailable(run: Run) -> None:
    async def act(client: Client) -> None:
        backend, port = await web_server(lambda _: b"")
        backend.close()
        await proxied_pod(client, "gone")
        with pytest.raises(ApiError) as error:
            await client.request("GET", f"/api/v1/namespaces/default/pods/gone:{port}/proxy/")
        text = f"error trying to reach service: dial tcp 127.0.0.1:{port}: connect: connection refused"
        assert (error.value.status, error.value.reason, error.value.message) == (503, "ServiceUnavailable", text)

    run(act)


def test_another_port_of_a_node_is_plain_http(server: RunningApiServer, run: Run) -> None:
    async def act(client: Client) -> None:
        backend, port = await web_server(lambda head: page(head.split("\r\n")[0]))
        async with Kubelet(server, switch_and_shout) as kubelet:
            await pod_on(client, "beside", kubelet)
            said = await client.request("GET", f"/api/v1/nodes/node-beside:{port}/proxy/healthz")
        assert said == b"GET /healthz HTTP/1.1"
        backend.close()

    run(act)


@pytest.mark.parametrize(
    ("protocol", "first", "second"),
    [("", b"", b"first\nsecond\n"), ("binary.k8s.io", b"", b"first\nsecond\n"),
     ("base64.binary.k8s.io", "", "Zmlyc3QKc2Vjb25kCg==")],
    ids=["none", "binary", "base64"],
)  # fmt: skip
def test_a_log_is_read_over_websocket(
    server: RunningApiServer, run: Run, protocol: str, first: bytes | str, second: bytes | str
) -> None:
    async def logs(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(page("first\nsecond\n", "Content-Type: text/plain"))
        await writer.drain()

    async def act(client: Client) -> None:
        name = f"logs-{protocol.partition('.')[0] or 'none'}"
        async with Kubelet(server, logs) as kubelet:
            await pod_on(client, name, kubelet)
            url = f"{client.credentials.server}/api/v1/namespaces/default/pods/{name}/log?container=a"
            offered = [protocol] if protocol else []
            async with client.session().ws_connect(url, protocols=offered) as socket:
                assert (socket.protocol or "") == protocol
                assert [(await socket.receive()).data for _ in range(3)] == [first, second, 1000]
        assert "Upgrade" not in kubelet.heads[0]

    run(act)


def test_a_log_that_is_refused_is_no_websocket(server: RunningApiServer, run: Run) -> None:
    async def refuse(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(page("no such container", status="400 Bad Request"))

    async def act(client: Client) -> None:
        async with Kubelet(server, refuse) as kubelet:
            await pod_on(client, "refused-log", kubelet)
            url = f"{client.credentials.server}/api/v1/namespaces/default/pods/refused-log/log?container=a"
            with pytest.raises(WSServerHandshakeError) as error:
                async with client.session().ws_connect(url, protocols=["binary.k8s.io"]):
                    pass
        assert error.value.status == 400

    run(act)
