"""CoreDNS as a process: sockets on loopback, probes, metrics, reload, the informers, loops and bad Corefiles."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from dnslib import DNSRecord

from kubewire.components.kubeapi.resources import ENDPOINTSLICES, NAMESPACES, SERVICES
from tests.kubeapi import FakeApi, kubeconfig

COREFILE = """\
. {{
    errors
    health 127.0.0.1:{health}
    ready 127.0.0.1:{ready}
    prometheus 127.0.0.1:{metrics}
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {folder}/kubeconfig
        pods insecure
    }}
    hosts {folder}/hosts {{
        192.0.2.1 one.test
        fallthrough
    }}
    cache 30 {{
        disable denial cluster.local
    }}
    loadbalance
    reload 2s 1s
}}
"""


def free_ports(count: int) -> list[int]:
    """Ports that are free for UDP and TCP at this moment."""
    held: list[socket.socket] = []
    ports: list[int] = []
    while len(ports) < count:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        held += [tcp, udp]
        try:
            udp.bind(tcp.getsockname())
            ports.append(tcp.getsockname()[1])
        except OSError:
            continue
    for sock in held:
        sock.close()
    return ports


def service(name: str, ip: str) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports},
    }


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 10.0) -> Any:
    """The first true value of condition, asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := await condition()):
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        await asyncio.sleep(0.02)
    return value


async def udp(port: int, name: str, qtype: str = "A") -> DNSRecord | None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        try:
            await loop.sock_sendall(sock, DNSRecord.question(name, qtype).pack())
            return DNSRecord.parse(await asyncio.wait_for(loop.sock_recv(sock, 4096), 1))
        except OSError:
            return None


async def tcp(port: int, names: list[str]) -> list[DNSRecord]:
    """Several questions on one connection before any answer is read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for name in names:
        data = DNSRecord.question(name).pack()
        writer.write(struct.pack("!H", len(data)) + data)
    replies = []
    for _ in names:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
        replies.append(DNSRecord.parse(await reader.readexactly(size)))
    writer.close()
    return replies


async def get(port: int, path: str) -> tuple[int, str]:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text()
    except aiohttp.ClientError:
        return 0, ""


async def opened(port: int, path: str) -> tuple[int, str] | None:
    """None until somebody listens there: the pages of a process open one after another, and after its DNS."""
    status, text = await get(port, path)
    return (status, text) if status else None


async def start(*argv: str, stdout: Any = asyncio.subprocess.PIPE) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kubewire.components.coredns", *argv, stdout=stdout, stderr=asyncio.subprocess.STDOUT
    )


async def ended(*argv: str) -> tuple[int | None, str]:
    process = await start(*argv)
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, output.decode()


async def _life(folder: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    dns, health, ready, metrics = free_ports(4)
    api = FakeApi()
    url = await api.start()
    await api.stop()
    (folder / "kubeconfig").write_text(kubeconfig(url))
    conf = folder / "Corefile"
    text = COREFILE.format(folder=folder, health=health, ready=ready, metrics=metrics)
    conf.write_text(text)
    output = folder / "output"
    with output.open("wb") as file:
        process = await start("-conf", str(conf), f"--dns.port={dns}", stdout=file)
    try:
        await until(lambda: opened(health, "/health"))
        await until(lambda: udp(dns, "one.test"))
        seen["ready without API"] = await until(lambda: opened(ready, "/ready"))
        denied = await udp(dns, "web.ns.svc.cluster.local")
        seen["rcode without API"] = denied.header.rcode if denied else None

        api.put(NAMESPACES, {"metadata": {"name": "ns"}})
        api.put(SERVICES, service("web", "10.96.0.100"))
        await api.start(port=int(url.rpartition(":")[2]))

        async def is_ready() -> bool:
            return (await get(ready, "/ready"))[0] == 200

        await until(is_ready)
        seen["health"] = await get(health, "/health")
        seen["tcp"] = [str(reply.rr[0].rdata) for reply in await tcp(dns, ["web.ns.svc.cluster.local", "one.test"])]

        async def answers(name: str, text: str) -> bool:
            reply = await udp(dns, name)
            return reply is not None and [str(rr.rdata) for rr in reply.rr] == [text]

        api.put(SERVICES, service("later", "10.96.0.101"))
        await until(lambda: answers("later.ns.svc.cluster.local", "10.96.0.101"))
        slice_ = {
            "metadata": {"name": "web-x", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.1.2"], "hostname": "w0"}],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        }
        api.put(ENDPOINTSLICES, slice_)
        await until(lambda: answers("w0.web.ns.svc.cluster.local", "10.244.1.2"))
        seen["metrics"] = (await get(metrics, "/metrics"))[1]
        lookup = await asyncio.create_subprocess_exec(
            "busybox", "nslookup", f"-port={dns}", "web.ns.svc.cluster.local", "127.0.0.1",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        seen["nslookup"] = (await lookup.communicate())[0].decode()

        conf.write_text(text.replace("one.test", "two.test"))
        process.send_signal(signal.SIGUSR1)
        await until(lambda: answers("two.test", "192.0.2.1"))
        conf.write_text(text + "foo {")
        process.send_signal(signal.SIGUSR1)

        async def refused() -> bool:
            return "reload failed" in output.read_text()

        await until(refused)
        seen["still"] = await until(lambda: answers("two.test", "192.0.2.1"))
        process.send_signal(signal.SIGTERM)
        seen["exit"] = await process.wait()
        seen["output"] = output.read_text()
    finally:
        if process.returncode is None:
            process.kill()
        await api.stop()
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return asyncio.run(_life(tmp_path_factory.mktemp("coredns")))


def test_until_the_api_server_is_there_it_is_not_ready_and_denies_nothing(seen):
    assert seen["ready without API"] == (503, "kubernetes")
    assert seen["rcode without API"] == 2


def test_it_answers_by_tcp_and_health_checks(seen):
    assert seen["tcp"] == ["10.96.0.100", "192.0.2.1"]
    assert seen["health"] == (200, "OK")


def test_its_metrics_are_coredns(seen):
    text = seen["metrics"]
    assert re.search(r'^coredns_dns_requests_total{.*server="dns://:', text, re.MULTILINE)
    assert re.search(r'family="1",proto="tcp",.*type="A".*} 2$', text, re.MULTILINE)
    assert re.search(r'plugin="kubernetes",rcode="NOERROR".*}', text)


def test_busybox_nslookup_understands_the_answers(seen):
    assert "10.96.0.100" in seen["nslookup"]
    assert "can't" not in seen["nslookup"]


def test_a_changed_corefile_is_taken_and_a_wrong_one_is_not(seen):
    assert seen["still"]
    assert "plugin/reload: Corefile changed but reload failed" in seen["output"]
    assert "Reloading complete" in seen["output"]


def test_sigterm_ends_it_with_exit_code_0(seen):
    assert seen["exit"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (". {\n errors\n foo\n}\n", "Corefile:3 - Error during parsing: Unknown directive 'foo'"),
        (". {\n forward\n}\n", "plugin/forward: "),
    ],
)
def test_a_wrong_corefile_ends_the_start(tmp_path: Path, text: str, message: str):
    (tmp_path / "Corefile").write_text(text)
    code, output = asyncio.run(ended("-conf", str(tmp_path / "Corefile")))
    assert code == 1
    assert message in output
    assert "Traceback" not in output


def test_a_port_in_use_ends_the_start(tmp_path: Path):
    (tmp_path / "Corefile").write_text(". {\n errors\n}\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code, output = asyncio.run(ended("-conf", str(tmp_path / "Corefile"), "-dns.port", str(port)))
    assert code == 1
    assert f"listen udp :{port}: bind: Address already in use" in output


def test_a_forwarding_loop_ends_it_with_the_sentence_of_the_loop_plugin(tmp_path: Path):
    (port,) = free_ports(1)
    (tmp_path / "Corefile").write_text(f". {{\n loop\n forward . 127.0.0.1:{port}\n}}\n")
    code, output = asyncio.run(ended("-conf", str(tmp_path / "Corefile"), "-dns.port", str(port)))
    assert code == 1
    assert "plugin/loop: Loop (127.0.0.1:" in output
    assert 'detected for zone "."' in output


@pytest.mark.parametrize(("flag", "text"), [("-version", "CoreDNS-1.12"), ("-plugins", "dns.kubernetes")])
def test_flags_that_only_print(flag: str, text: str):
    code, output = asyncio.run(ended(flag))
    assert code == 0
    assert text in output


def test_unknown_flags_are_refused():
    code, output = asyncio.run(ended("-dns.prot", "1"))
    assert (code, output.strip()) == (2, "flag provided but not defined: -dns.prot")
