"""The subcommands and images of upstream's tests that are more than a socket."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from kubewire.components.agnhost import badpackets, incluster, openidmetadata
from kubewire.components.agnhost.grpc_health import Health
from kubewire.components.agnhost.http import BadRequest, Request, RequestParser, Response
from kubewire.components.agnhost.http2 import PREFACE, Connection, ProtocolError, frame
from kubewire.components.agnhost.loop import Loop
from kubewire.components.agnhost.mounttest import NEW_FILE, go_mode
from kubewire.components.agnhost.netexec import NetExec
from kubewire.components.agnhost.resource_consumer import Consumer
from kubewire.components.agnhost.webserver import _picture
from kubewire.components.kubelet.probes import grpc


def run(*argv: str, code: str = "main(sys.argv[1:])") -> subprocess.CompletedProcess[str]:
    program = f"import sys; from kubewire.components.agnhost.main import *; sys.exit({code})"
    return subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        (b"hostName\n", True),
        (b"hostName\r\n", True),
        (b"GET\n", True),
        (b"GET / HTTP/2.0\r\n", True),
        (b"GET / HTTP/1.1\r\n", False),
        (b"GET / HTTP/1.1\r\nHost", False),
        (b"hostName", False),
        (b"\r\nGET / HTTP/1.1\r\n", False),
    ],
)
def test_a_line_that_is_no_request_is_refused_at_once(line: bytes, refused: bool) -> None:
    parser = RequestParser()
    parser.feed(line)
    if not refused:
        assert parser.next() is None
        return
    with pytest.raises(BadRequest) as error:
        parser.next()
    assert error.value.status == 400


def answer(netexec: NetExec, path: str) -> Response:
    answers: list[Response] = []
    netexec.handle(Request("GET", path, {}), answers.append)
    return answers[0]


@pytest.mark.parametrize(
    ("ready", "terminating", "status", "body"),
    [(False, False, 412, b""), (True, False, 200, b"ok"), (True, True, 503, b"shutting down")],
)
def test_readyz_says_that_the_server_ends(ready: bool, terminating: bool, status: int, body: bytes) -> None:
    netexec = NetExec(Loop())
    netexec.ready, netexec.terminating = ready, terminating
    found = answer(netexec, "/readyz")
    assert (found.status, found.body) == (status, body)
    assert answer(netexec, "/healthz").status == (200 if ready else 412)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"serverport", b"8081"),
        (b"ServerPort\n", b"8081"),
        (b"clientip", b"10.0.0.1:5"),
        (b"echo Hi", b"hi"),
        (b"x", None),
    ],
)
def test_datagrams(asked: bytes, said: bytes | None) -> None:
    assert NetExec(Loop()).answer_datagram(asked, "10.0.0.1:5", "udp", 8081) == said


def test_the_entrypoint_tester_says_which_program_was_started() -> None:
    assert run("entrypoint-tester", "a", "b c").stdout == "[/agnhost entrypoint-tester a b c]\n"
    assert run("entrypoint-tester", code="second(sys.argv[1:])").stdout == "[/agnhost-2 entrypoint-tester]\n"


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (0o100644, "-rw-r--r--"), (0o040777, "drwxrwxrwx"), (0o041777, "dtrwxrwxrwx"), (0o042775, "dgrwxrwxr-x"),
        (0o120777, "Lrwxrwxrwx"), (0o104755, "urwxr-xr-x"), (0o020620, "Dcrw--w----"), (0o010600, "prw-------"),
    ],
)  # fmt: skip
def test_modes_as_go_prints_them(mode: int, text: str) -> None:
    assert go_mode(mode) == text


def test_mounttest_writes_and_prints(tmp_path: Path) -> None:
    file = tmp_path / "new"
    done = run(
        "mounttest", f"--fs_type={tmp_path}", f"--new_file_0660={file}", f"--file_mode={file}", f"--file_perm={file}",
        f"--file_owner={file}", f"--file_content={file}",
    )  # fmt: skip
    kind, rest = done.stdout.split("\n", 1)
    number = subprocess.run(["stat", "-f", "-c", "%t", tmp_path], capture_output=True, text=True, check=True).stdout
    expected = "tmpfs" if number.strip() == "1021994" else str(int(number, 16))
    assert kind == f'mount type of "{tmp_path}": {expected}'
    content = f'content of file "{file}": {NEW_FILE}\n'
    assert rest == (
        f'{content}mode of file "{file}": -rw-rw----\nperms of file "{file}": -rw-rw----\n'
        f'owner UID of "{file}": {os.getuid()}\nowner GID of "{file}": {os.getgid()}\n{content}'
    )
    assert done.returncode == 0
    missing = run("mounttest", "--file_content=/no/such")
    assert (missing.returncode, "no such file" in missing.stdout) == (1, True)
    looped = run("mounttest", f"--file_content_in_loop={file}", "--retry_time=5")
    assert (looped.returncode, looped.stdout) == (0, content)


def said(health: Health, service: str) -> str:
    received = Connection(health.check).receive(grpc.request("pod:5000", service))
    if b"unknown service" in received:
        return "unknown"
    return "serving" if b"\0\0\0\0\x02\x08\x01" in received else "not serving"


def test_grpc_health_checks() -> None:
    health = Health("mine")
    assert [said(health, service) for service in ("mine", "", "other")] == ["serving", "unknown", "unknown"]
    answers: list[Response] = []
    health.control(Request("GET", "/make-not-serving", {}), answers.append)
    assert said(health, "mine") == "not serving"
    health.control(Request("GET", "/make-serving", {}), answers.append)
    assert said(health, "mine") == "serving"
    health.control(Request("GET", "/", {}), answers.append)
    assert [item.status for item in answers] == [200, 200, 404]
    assert said(Health(unhealthy_after=0.0), "") == "not serving"
    assert said(Health(unhealthy_after=1e6), "") == "serving"


def test_http2_in_any_pieces() -> None:
    asked = grpc.request("pod:5000", "")
    whole = Connection(Health().check).receive(asked)
    connection = Connection(Health().check)
    assert b"".join(connection.receive(asked[at : at + 1]) for at in range(len(asked))) == whole
    assert connection.receive(frame(6, 0, 0, b"12345678")) == frame(6, 1, 0, b"12345678")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", PREFACE + b"\xff\xff\xff\0\0\0\0\0\1"], ids=["HTTP/1.1", "long"]
)
def test_what_is_not_http2_ends_the_connection(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Connection(Health().check).receive(data)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def rsa_key() -> tuple[dict[str, str], Callable[[bytes], bytes]]:
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "kid": "1", "e": encoded(b"\1\0\1"), "n": encoded(numbers.n.to_bytes(256, "big"))}
    return jwk, lambda signed: key.sign(signed, padding.PKCS1v15(), hashes.SHA256())


def ec_key() -> tuple[dict[str, str], Callable[[bytes], bytes]]:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    point = {"x": encoded(numbers.x.to_bytes(32, "big")), "y": encoded(numbers.y.to_bytes(32, "big"))}

    def sign(signed: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return {"kty": "EC", "kid": "1", "crv": "P-256", **point}, sign


ISSUER = "https://kubernetes.default.svc"


@pytest.mark.parametrize(("algorithm", "make"), [("RS256", rsa_key), ("ES256", ec_key)], ids=["RS256", "ES256"])
def test_a_token_is_verified_by_its_issuers_documents(algorithm: str, make: Any) -> None:
    jwk, sign = make()
    other, _ = make()
    claims = {"iss": ISSUER, "aud": ["mine"], "exp": 2000}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({"alg": algorithm, "kid": "1"}, claims))
    token = f"{signed}.{encoded(sign(signed.encode()))}"
    documents = {
        f"{ISSUER}/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": "https://api/openid/v1/jwks"},
        "https://api/openid/v1/jwks": {"keys": [jwk]},
    }

    def check(audience: str = "mine", now: float = 1000, keys: Any = documents) -> None:
        openidmetadata.validate(token, audience, lambda url: json.dumps(keys[url]).encode(), now)

    check()
    for wrong, text in (
        ({"audience": "yours"}, "expected audience"),
        ({"now": 3000}, "expired"),
        ({"keys": documents | {"https://api/openid/v1/jwks": {"keys": [other]}}}, "failed to verify signature"),
    ):
        with pytest.raises(openidmetadata.InvalidToken, match=text):
            check(**wrong)


def test_the_in_cluster_client_names_the_server_and_hashes_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert incluster.server() == "https://[fd00::1]:443"
    assert incluster.header_hash("t") != incluster.header_hash("u")
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT")
    with pytest.raises(SystemExit):
        incluster.server()


def test_the_bad_packet_follows_the_handshake_and_is_out_of_the_window() -> None:
    prober = badpackets.Prober("10.0.0.1")

    def packet(flags: int, seq: int, ack: int, port: int = badpackets.PORT) -> bytes:
        return struct.pack(">HHIIHHHH", 5555, port, seq, ack, 5 << 12 | flags, 100, 0, 0)

    assert prober.received("10.0.0.2", packet(badpackets.SYN, 7, 0)) is None
    assert prober.received("10.0.0.2", packet(badpackets.ACK, 8, 200_001, 80)) is None
    sent = prober.received("10.0.0.2", packet(badpackets.ACK, 8, 200_001))
    assert sent is not None
    ports, seq, ack = struct.unpack_from(">HH", sent), *struct.unpack_from(">II", sent, 4)
    assert (ports, seq, ack, sent[20:]) == ((9000, 5555), 100_001, 8, b"boom!!!")
    pseudo = socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2") + struct.pack(">II", len(sent), 6)
    assert badpackets.checksum(pseudo + sent) == 0
    assert prober.received("10.0.0.2", packet(badpackets.ACK, 8, 200_001)) is None


def test_the_resource_consumer_takes_orders() -> None:
    works: list[Callable[[], None]] = []
    consumer = Consumer(works.append)

    def post(path: str, form: str, method: str = "POST") -> Response:
        answers: list[Response] = []
        headers = {"content-type": "application/x-www-form-urlencoded"}
        consumer.answer(Request(method, path, headers, form.encode()), answers.append)
        return answers[0]

    assert post("/ConsumeCPU", "millicores=300&durationSec=10").body == b"ConsumeCPU\n300 millicores\n10 durationSec\n"
    assert post("/ConsumeMem", "megabytes=1&durationSec=10").status == 200
    assert len(works) == 2
    assert post("/BumpMetric", "metric=qps&delta=3&durationSec=60").status == 200
    assert b"\nqps 3\n" in post("/metrics", "", "GET").body
    assert [post("/ConsumeCPU", form).status for form in ("", "millicores=x&durationSec=1")] == [400, 400]
    assert post("/ConsumeCPU", "", "GET").status == 400
    assert post("/nothing", "").status == 404


def test_no_more_cpu_is_used_than_was_asked_for() -> None:
    from kubewire.components.agnhost.resource_consumer import use_cpu

    began = time.process_time()
    use_cpu(0.2, 0.5)
    assert 0 < time.process_time() - began <= 0.3, "under load it gets less, and never more"


@pytest.mark.parametrize("name", ["kitten.jpg", "nautilus.jpg"])
def test_the_pictures_of_the_update_demo_say_which_they_are(name: str) -> None:
    assert json.loads(_picture(name, Request("GET", "/data.json", {})).body) == {"image": name}
    assert _picture(name, Request("GET", "/x", {})).status == 404
