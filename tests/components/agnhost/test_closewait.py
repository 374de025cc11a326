"""agnhost net: a connection that the server has half closed, and what goes wrong."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import pytest

from kubewire.components.agnhost.closewait import run
from tests.components.agnhost.test_programs import Start, free_port, start, wait_for_port

__all__ = ["start"]


def post(port: int, path: str, options: object) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, json.dumps(options))
    response = connection.getresponse()
    try:
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_client_sees_the_fin_of_its_server(start: Start) -> None:
    port = free_port()
    options = {"LocalAddr": f"127.0.0.1:{port}", "PostFinTimeoutSeconds": 0}
    server = start("net", "--runner", "nat-closewait-server", "--options", json.dumps(options), stdout=-1)
    said, failure = "", "connection refused"
    while "refused" in failure.lower():
        assert server.poll() is None
        said, failure = run("nat-closewait-client", json.dumps({"RemoteAddr": f"127.0.0.1:{port}"}))
    assert failure == ""
    assert "Connected to server" in said and "Server has half-closed the connection, waiting 0 seconds" in said
    out, _ = server.communicate(timeout=30)
    assert out.startswith(b"output:\n\n# ") and b"Server sent FIN" in out and server.returncode == 0


def test_runners_are_started_by_requests(start: Start) -> None:
    port = free_port()
    start("net", "--serve", f"127.0.0.1:{port}")
    wait_for_port(port)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        asked.request("POST", "/run/nat-closewait-client", json.dumps({"RemoteAddr": address}))
        with listener.accept()[0] as connection:
            connection.shutdown(socket.SHUT_WR)
            answer = asked.getresponse()
            assert (answer.status, answer.read().decode().startswith("ok\noutput:\n\n")) == (200, True)
        asked.close()
    status, text = post(port, "/run/other", {})
    assert (status, text) == (500, "Error from runner: Invalid runner: 'other', see --help\noutput:\n\n\n")
    assert post(port, "/run/a/b", {})[0] == 400


@pytest.mark.parametrize(
    ("runner", "options", "failure"),
    [
        ("other", "{}", "Invalid runner: 'other', see --help"),
        ("nat-closewait-client", "[", "Invalid options JSON: "),
        ("nat-closewait-client", '{"RemoteAddr": "x"}', "address x: missing port in address"),
    ],
    ids=["no such runner", "no JSON", "no port"],
)
def test_what_a_runner_refuses(runner: str, options: str, failure: str) -> None:
    assert run(runner, options)[1].startswith(failure)


def test_data_instead_of_a_fin_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(b"x")

        thread = threading.Thread(target=answer)
        thread.start()
        failure = run("nat-closewait-client", json.dumps({"RemoteAddr": f"127.0.0.1:{port}"}))[1]
        thread.join()
    assert failure == "Got data but expected EOF"
