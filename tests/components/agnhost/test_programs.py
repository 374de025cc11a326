"""The programs as processes on loopback: what they answer, how they end. Ports are the kernel's choice."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubewire.components.agnhost.http import HttpServer, Request, Response, listen_tcp
from kubewire.components.agnhost.loop import Loop
from tests.scratch import isolated

Start = Callable[..., subprocess.Popen[bytes]]


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def start() -> Iterator[Start]:
    """start(*argv, env=...) -> a process of `agnhost argv`; killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*argv: str, module: str = "kubewire.components.agnhost", **options: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, *argv]
        started.append(subprocess.Popen(command, stderr=subprocess.PIPE, **options))  # type: ignore[call-overload]
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for_port(port: int, host: str = "127.0.0.1") -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.01)


def get(port: int, path: str, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=15)
    connection.request(method, path)
    response = connection.getresponse()
    try:
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.fixture
def netexec(start: Start) -> tuple[subprocess.Popen[bytes], int, int]:
    """(process, HTTP port, UDP port)"""
    http_port, udp_port = free_port(), free_port(socket.SOCK_DGRAM)
    process = start("netexec", "--http-port", str(http_port), "--udp-port", str(udp_port))
    wait_for_port(http_port)
    return process, http_port, udp_port


NetExec = tuple[subprocess.Popen[bytes], int, int]


def ask_udp(port: int, message: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.sendto(message, ("127.0.0.1", port))
        return sock.recv(2048)


def test_http_endpoints(netexec: NetExec) -> None:
    _, port, _ = netexec
    name = socket.gethostname()
    assert get(port, "/hostname") == get(port, "/hostName") == (200, name)
    assert get(port, "/echo?msg=hello%20you") == (200, "hello you")
    assert get(port, "/echo?msg=x&code=418") == (418, "x")
    assert get(port, "/echo?msg=x&code=no") == (200, "argument 'code' must be an integer or empty, got \"no\"\n")
    assert get(port, "/")[1].startswith("NOW: ")
    assert get(port, "/any/other")[1].startswith("NOW: ")
    assert (get(port, "/healthz"), get(port, "/readyz")) == ((200, ""), (200, "ok"))
    assert get(port, "/serverport") == (200, str(port))
    assert get(port, "/clientip")[1].startswith("127.0.0.1:")
    assert get(port, "/header?key=host")[1] == f"127.0.0.1:{port}"
    assert json.loads(get(port, "/shell?cmd=echo+hi")[1]) == {"output": "hi\n"}
    assert json.loads(get(port, "/shell?shellCommand=exit+3")[1]) == {"error": "exit status 3"}


def test_ipv6_clients_reach_the_same_socket(netexec: NetExec) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    assert get(netexec[1], "/clientip", "::1")[1].startswith("[::1]:")


def test_redirect(netexec: NetExec) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", netexec[1], timeout=10)
    connection.request("GET", "/redirect?location=/echo%3Fmsg=foobar&code=307")
    response = connection.getresponse()
    assert (response.status, response.headers["Location"]) == (307, "/echo?msg=foobar")
    assert response.read() == b'<a href="/echo?msg=foobar">Temporary Redirect</a>.\n\n'
    connection.close()


def test_udp_commands(netexec: NetExec) -> None:
    port = netexec[2]
    assert ask_udp(port, b"hostname\n") == socket.gethostname().encode()
    assert ask_udp(port, b"echo Some Words") == b"some words"
    assert ask_udp(port, b"clientip").startswith(b"127.0.0.1:")


def test_keep_alive_and_many_connections_at_once(netexec: NetExec) -> None:
    _, port, _ = netexec
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    seen = set()
    for _ in range(3):
        connection.request("GET", "/clientip")
        seen.add(connection.getresponse().read())
    connection.close()
    assert len(seen) == 1, "one connection, one client port"
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda n: get(port, f"/echo?msg={n % 4}")[1], range(80))) == {"0", "1", "2", "3"}
    for sock in idle:
        sock.close()


def test_requests_in_pieces_and_in_a_row(netexec: NetExec) -> None:
    with socket.create_connection(("127.0.0.1", netexec[1]), timeout=10) as sock:
        form = b"Content-Type: application/x-www-form-urlencoded\r\n"
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n" + form + b"\r\nmsg=")
        assert get(netexec[1], "/healthz")[0] == 200, "a half request holds up nobody"
        sock.sendall(b"abcGET /echo?msg=2 HTTP/1.1\r\n\r\nGET /echo?msg=3 HTTP/1.1\r\nConnection: close\r\n\r\n")
        answers = b""
        while chunk := sock.recv(65536):
            answers += chunk
    assert [part.split(b"\r\n\r\n")[1] for part in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"abc", b"2", b"3"]


@pytest.mark.parametrize("bad", [b"GET //[/ HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n"])
def test_a_bad_request_behind_a_good_one_ends_its_connection_only(netexec: NetExec, bad: bytes) -> None:
    with socket.create_connection(("127.0.0.1", netexec[1]), timeout=10) as sock:
        sock.sendall(b"GET /echo?msg=1 HTTP/1.1\r\n\r\n" + bad)
        answers = b""
        while chunk := sock.recv(65536):
            answers += chunk
    assert [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]] == [200, 400]
    assert get(netexec[1], "/healthz")[0] == 200


def failing_server() -> list[bytes]:
    def handler(request: Request, respond: Callable[[Response], None]) -> None:
        if request.path == "/fails":
            raise LookupError("a fault")
        respond(Response(200, b"ok"))

    loop, listener = Loop(), listen_tcp(0, "127.0.0.1")
    HttpServer(loop, listener, handler)
    threading.Thread(target=loop.run, daemon=True).start()
    good = b"GET /good HTTP/1.1\r\n\r\n"
    answers = []
    for requests in (b"GET /fails HTTP/1.1\r\n\r\n", good + b"GET /fails HTTP/1.1\r\n\r\n", good[:-2] + CLOSE):
        with socket.create_connection(listener.getsockname(), timeout=10) as sock:
            sock.sendall(requests)
            answers.append(b"".join(iter(lambda: sock.recv(65536), b"")))
    return [answer[:15] for answer in answers]


CLOSE = b"Connection: close\r\n\r\n"


def test_a_handler_that_fails_ends_its_connection_only() -> None:
    assert isolated(failing_server) == [b"", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"]


def dialled(netexec: NetExec, query: str) -> object:
    return json.loads(get(netexec[1], f"/dial?{query}")[1])


def test_dial(netexec: NetExec) -> None:
    _, port, udp_port = netexec
    name = socket.gethostname()
    assert dialled(netexec, f"host=127.0.0.1&port={port}&request=hostname&tries=3") == {"responses": [name] * 3}
    assert dialled(netexec, f"host=127.0.0.1&port={port}&request=echo?msg=a%26code=500&protocol=HTTP") == {
        "responses": ["a"]
    }
    assert dialled(netexec, f"host=127.0.0.1&port={udp_port}&request=hostname&protocol=udp") == {"responses": [name]}
    assert dialled(netexec, f"host=localhost&port={port}&request=redirect?location=/hostname") == {"responses": [name]}
    closed = free_port()
    refused = f'Get "http://127.0.0.1:{closed}/hostname": dial tcp 127.0.0.1:{closed}: connect: connection refused'
    assert dialled(netexec, f"host=127.0.0.1&port={closed}&request=hostname&tries=2") == {"errors": [refused] * 2}
    udp_error = dialled(netexec, f"host=127.0.0.1&port={closed}&request=hostname&protocol=udp")
    assert "read: connection refused'" in str(udp_error)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("host=127.0.0.1&port=1", "request parameter not specified. <nil>\n"),
        (
            "host=127.0.0.1&port=1&request=x&tries=a",
            'tries parameter is invalid. strconv.Atoi: parsing "a": invalid syntax\n',
        ),
        ("host=127.0.0.1&port=1&request=x&protocol=icmp", "unsupported protocol. icmp\n"),
        ("host=127.0.0.1&port=nope&request=x", "host and/or port param are invalid. lookup tcp/nope: unknown port\n"),
    ],
)
def test_dial_refuses_bad_parameters(netexec: NetExec, query: str, message: str) -> None:
    assert get(netexec[1], f"/dial?{query}") == (400, message)


def test_a_hanging_dial_does_not_hold_up_others(netexec: NetExec) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, concurrent.futures.ThreadPoolExecutor(1) as pool:
        silent.bind(("127.0.0.1", 0))
        query = f"/dial?host=127.0.0.1&port={silent.getsockname()[1]}&request=x&protocol=udp"
        hanging = pool.submit(get, netexec[1], query)
        silent.recv(100)
        assert get(netexec[1], "/healthz")[0] == 200
        assert not hanging.done()
        assert "i/o timeout'" in hanging.result(15)[1]


@pytest.mark.parametrize(
    ("path", "code"), [("/exit?code=7", 7), ("/shutdown", 0), ("/exit?code=3&timeout=5s&wait=50ms", 3)]
)
def test_exit_and_shutdown(netexec: NetExec, path: str, code: int) -> None:
    process, port, _ = netexec
    try:
        get(port, path)
    except (http.client.RemoteDisconnected, ConnectionResetError):
        pass
    assert process.wait(10) == code


def test_sigterm(netexec: NetExec, start: Start) -> None:
    netexec[0].send_signal(signal.SIGTERM)
    assert netexec[0].wait(10) == 0
    port = free_port()
    slow = start("netexec", f"--http-port={port}", "--udp-port=-1", "--delay-shutdown=1")
    wait_for_port(port)
    assert get(port, "/healthz")[0] == 412, "not ready without its UDP server, as upstream"
    slow.send_signal(signal.SIGTERM)
    assert get(port, "/hostname")[0] == 200, "still serving"
    assert get(port, "/readyz") == (503, "shutting down")
    assert slow.wait(10) == 0


def test_upload_answers_an_error_without_its_directory(netexec: NetExec) -> None:
    assert json.loads(get(netexec[1], "/upload", method="POST")[1]) == {"error": "Unable to upload file."}


def test_http_override(start: Start) -> None:
    port = free_port()
    start("netexec", f"--http-port={port}", "--udp-port=-1", "--http-override=/echo?msg=always")
    wait_for_port(port)
    assert get(port, "/hostname") == (200, "always")


def test_tls(start: Start, tmp_path: Path) -> None:
    import ssl

    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    start(
        "netexec",
        f"--http-port={port}",
        "--udp-port=-1",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
    )
    wait_for_port(port)
    context = ssl.create_default_context(cafile=str(certificate))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    for size in (1, 40_000):
        connection.request(
            "POST", "/echo", body="msg=" + "x" * size, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        assert len(connection.getresponse().read()) == size
    connection.close()


def test_serve_hostname(start: Start) -> None:
    name = socket.gethostname()
    http_port, port = free_port(), free_port()
    start("serve-hostname", "--port", str(http_port))
    wait_for_port(http_port)
    assert get(http_port, "/whatever") == (200, name)
    both = start("serve-hostname", "--tcp", "--udp", "--http=false", f"--port={port}")
    wait_for_port(port)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        assert sock.makefile().read() == name
    assert ask_udp(port, b"x") == name.encode()
    both.send_signal(signal.SIGTERM)
    assert ask_udp(port, b"x") == name.encode(), "it lingers for a minute after SIGTERM"
    clash = start("serve-hostname", "--tcp")
    assert clash.wait(10) == 1 and clash.stderr is not None and b"at the same time" in clash.stderr.read()


@pytest.mark.parametrize(
    ("argv", "code", "stderr"),
    [
        (["{open}"], 0, ""),
        (["{closed}"], 1, "REFUSED\n"),
        (["--timeout=5s", "--protocol=udp", "{closed}"], 1, "REFUSED: read udp"),
        (["--timeout=300ms", "--protocol=udp", "{silent}"], 1, "TIMEOUT: read udp"),
        (["no-such-name.invalid:80"], 1, "DNS: lookup no-such-name.invalid: no such host"),
        (["noport"], 1, "UNKNOWN: address noport: missing port in address"),
        (["--protocol=icmp", "{open}"], 1, "Unsupported protocol"),
        ([], 1, "Error: accepts 1 arg(s), received 0"),
    ],
    ids=["connected", "refused", "udp refused", "udp timeout", "dns", "no port", "protocol", "no argument"],
)
def test_connect(argv: list[str], code: int, stderr: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        places = {"open": listener.getsockname()[1], "closed": free_port(), "silent": silent.getsockname()[1]}
        filled = [word.format(**{key: f"127.0.0.1:{port}" for key, port in places.items()}) for word in argv]
        command = [sys.executable, "-m", "kubewire.components.agnhost", "connect", *filled]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == code
    assert done.stderr.startswith(stderr) and (stderr or not done.stderr)


def run(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kubewire.components.agnhost", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=env)


def test_programs_that_print() -> None:
    assert run("etc-hosts").stdout == Path("/etc/hosts").read_text() + "\n"
    generated = run("logs-generator", "-t", "5", "-d", "50ms").stderr.splitlines()
    assert [line.split("] ")[1].split()[0] for line in generated] == ["0", "1", "2", "3", "4"]
    assert run("logs-generator").returncode == 1
    assert 'unknown command "nope" for "app"' in run("nope").stderr
    assert "netexec" in run("help").stdout


def test_pause_ends_by_signal(start: Start) -> None:
    for number, code in ((signal.SIGTERM, 2), (signal.SIGINT, 1)):
        process = start("pause", stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"Paused\n"
        process.send_signal(number)
        assert process.wait(10) == code


def test_porter(start: Start) -> None:
    import os

    tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
    env = {**os.environ, f"SERVE_PORT_{tcp}": "over tcp", f"SERVE_UDP_PORT_{udp}": "over udp"}
    start("porter", "--json-response", env=env)
    wait_for_port(tcp)
    assert get(tcp, "/", method="POST") == (200, '{"Body":"over tcp","Method":"POST"}')
    assert ask_udp(udp, b"x") == b"over udp"
    if Path("/proc/net/if_inet6").read_text():
        socket.create_connection(("::1", tcp), timeout=5).close()  # 0.0.0.0 is both families, as in Go


def test_no_snat_test_compares_what_the_others_saw(start: Start) -> None:
    import os

    port = free_port()
    start("no-snat-test", f"--port={port}", env={**os.environ, "POD_IP": "127.0.0.1", "NODE_IP": "127.0.0.1"})
    wait_for_port(port)
    assert get(port, "/whoami") == (200, "127.0.0.1")
    assert get(port, f"/checknosnat?ips=127.0.0.1:{port}") == (200, "")
    other = free_port()
    start("no-snat-test", f"--port={other}", env={**os.environ, "POD_IP": "10.0.0.9", "NODE_IP": "127.0.0.1"})
    wait_for_port(other)
    status, body = get(other, f"/checknosnat?ips=127.0.0.1:{port}")
    assert status == 500 and "expected 10.0.0.9 but received 127.0.0.1" in body


def test_the_proxy_of_no_snat_test_passes_answers_on(start: Start) -> None:
    import os

    port, proxy, nobody = free_port(), free_port(), free_port()
    start("no-snat-test", f"--port={port}", env={**os.environ, "POD_IP": "10.0.0.9", "NODE_IP": "127.0.0.1"})
    start("no-snat-test-proxy", f"--port={proxy}")
    wait_for_port(port)
    wait_for_port(proxy)
    target = f"127.0.0.1:{port}"
    assert get(proxy, f"/checknosnat?target={target}&ips=") == (200, "")
    assert get(proxy, f"/checknosnat?target={target}&ips={target}") == get(port, f"/checknosnat?ips={target}")
    status, body = get(proxy, f"/checknosnat?target=127.0.0.1:{nobody}&ips=10.0.0.1")
    assert status == 500
    assert body.startswith(f'error querying "http://127.0.0.1:{nobody}/checknosnat?ips=10.0.0.1", err: Get "http')
    assert get(proxy, "/whoami")[0] == 404


def test_tcp_reset(start: Start) -> None:
    port = free_port()
    start("tcp-reset", f"--port={port}")
    wait_for_port(port)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"12")
        with pytest.raises(ConnectionResetError):
            assert sock.recv(1) == b"never an orderly end"


def test_nginx_stand_in(start: Start, tmp_path: Path) -> None:
    import os

    port = free_port()
    # The variable is the link to a Service named nginx.
    program = f"from kubewire.components.agnhost.webserver import main; main([], {port})"
    environment = {**os.environ, "NGINX_PORT": "tcp://10.96.0.9:80"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
    wait_for_port(port)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/no/such?x=1", headers={"User-Agent": "test"})
    response = connection.getresponse()
    assert response.status == 404 and response.headers["Server"].startswith("nginx/")
    assert b"<center><h1>404 Not Found</h1></center>" in response.read()
    connection.close()
    assert get(port, "/", method="POST")[0] == 405
    process.send_signal(signal.SIGQUIT)
    assert process.wait(10) == 0
    assert process.stdout is not None and b'"GET /no/such?x=1 HTTP/1.1" 404' in process.stdout.read()


def test_static_files_stay_below_their_root(tmp_path: Path) -> None:
    from functools import partial

    from kubewire.components.agnhost.http import Request
    from kubewire.components.agnhost.webserver import _nginx_file

    root = tmp_path / "html"
    root.mkdir()
    (tmp_path / "secret").write_text("no")
    serve = partial(_nginx_file, root)
    assert b"Welcome to nginx!" in serve(Request("GET", "/", {})).body
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "sub").mkdir()
    assert serve(Request("GET", "/", {})).status == 403
    (root / "index.html").write_text("<p>mine</p>")
    assert serve(Request("GET", "/", {})).body == b"<p>mine</p>"
    assert serve(Request("GET", "/index.html", {})).headers["Content-Type"] == "text/html"
    assert serve(Request("GET", "/sub", {"host": "h"})).headers["Location"] == "http://h/sub/"
    assert serve(Request("GET", "/sub/", {})).status == 403
    for path in ("/../secret", "/%2e%2e/secret", "/link"):
        assert serve(Request("GET", path, {})).status == 404, path
