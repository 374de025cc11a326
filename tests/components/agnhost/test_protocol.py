"""The parts without sockets: flags, durations, HTTP bytes, resolv.conf."""

from __future__ import annotations

import pytest

from kubewire.components.agnhost import resolv
from kubewire.components.agnhost.flags import Flag, parse
from kubewire.components.agnhost.golang import host_port, to_json
from kubewire.components.agnhost.http import (
    BadRequest,
    Request,
    RequestParser,
    Response,
    content_type,
    encode,
    redirect,
)


def test_addresses_are_joined_as_go_does() -> None:
    assert host_port(("10.0.0.1", 80)) == "10.0.0.1:80"
    assert host_port(("::ffff:10.0.0.1", 80, 0, 0)) == "10.0.0.1:80"
    assert host_port(("fd00::1", 80, 0, 0)) == "[fd00::1]:80"


def test_json_is_gos() -> None:
    assert to_json({"b": ["<&>"], "a": "é"}) == '{"a":"é","b":["\\u003c\\u0026\\u003e"]}'


FLAGS = (Flag("port", 80), Flag("tcp", False), Flag("name", "x", short="n"), Flag("wait", 0.0, duration=True))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--port", "8080"], {"port": 8080}),
        (["--port=8080", "--tcp"], {"port": 8080, "tcp": True}),
        (["--tcp=false", "-n", "y"], {"tcp": False, "name": "y"}),
        (["--wait=1m"], {"wait": 60.0}),
        (["--v=4", "--logtostderr"], {}),
    ],
)
def test_flags(argv: list[str], expected: dict[str, object]) -> None:
    values, rest = parse("test", FLAGS, argv)
    assert {key: values[key] for key in expected} == expected and rest == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["--port"], "flag needs an argument: --port"),
        (["--port=x"], 'invalid argument "x" for "--port" flag'),
        (["--wait=1"], 'invalid argument "1" for "--wait" flag: time: missing unit'),
    ],
)
def test_wrong_flags(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse("test", FLAGS, argv)
    assert raised.value.code == 1
    assert f"Error: {message}" in capsys.readouterr().err


def test_requests_arrive_in_pieces_and_in_a_row() -> None:
    parser = RequestParser()
    wire = (
        b"GET /a?x=1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.0\r\n\r\n"
    )
    found: list[Request] = []
    for byte in wire:
        parser.feed(bytes([byte]))
        while (request := parser.next()) is not None:
            found.append(request)
    assert [(r.method, r.path, r.body, r.keep_alive) for r in found] == [
        ("GET", "/a", b"", True),
        ("POST", "/b", b"abc", True),
        ("GET", "/c", b"", False),
    ]
    assert found[0].query("x") == "1"


def test_chunked_bodies() -> None:
    parser = RequestParser()
    parser.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n3;x=y\r\nefg\r\n0\r\n\r\n")
    request = parser.next()
    assert request is not None and request.body == b"abcdefg"
    assert parser.next() is None


BAD_SIZES = (b"-6", b"+3", b"1_0", b"0x3", b"", b";x", b"f" * 5000, b"3 3")


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"GET //[/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[::1/ HTTP/1.1\r\n\r\n", 400),
        # A negative size would go back to the chunk before, for ever.
        *((b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n\r\n", 400) for size in BAD_SIZES),
        (b"x" * ((1 << 20) + 1), 431),
    ],
)
def test_what_is_not_http_is_refused(wire: bytes, status: int) -> None:
    parser = RequestParser()
    parser.feed(wire)
    with pytest.raises(BadRequest) as raised:
        parser.next()
    assert raised.value.status == status


def test_answers_carry_length_type_and_connection() -> None:
    head, _, body = encode(Response(200, b"hello"), close=True).partition(b"\r\n\r\n")
    assert body == b"hello" and head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Length: 5" in head and b"\r\nConnection: close" in head
    assert b"\r\nContent-Type: text/plain; charset=utf-8" in head
    assert encode(Response(204)).count(b"Content-Length") == 0
    assert content_type(b"<!DOCTYPE html><html>").startswith("text/html")
    assert content_type(b"\x00\x01") == "application/octet-stream"


def test_redirects_resolve_relative_locations() -> None:
    request = Request("GET", "/a/b", {})
    assert redirect(request, "c", 302).headers["Location"] == "/a/c"
    assert redirect(request, "http://h/", 307).headers["Location"] == "http://h/"


def test_resolv_conf() -> None:
    text = (
        "# made by kubelet\nnameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local\nnameserver fd00::a\n"
    )
    assert resolv.servers(text) == ["10.96.0.10", "fd00::a"]
    assert resolv.suffixes(text) == ["a.svc.cluster.local", "svc.cluster.local"]
