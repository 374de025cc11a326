"""What is imported without the machine's certificate authorities, and that only the import is."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from kubewire.components.base.authorities import without_authorities

PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
CHECKOUT = Path(__file__).resolve().parents[3]


def test_a_tls_context_made_meanwhile_trusts_nobody() -> None:
    with without_authorities():
        assert ssl.create_default_context().cert_store_stats()["x509"] == 0


@pytest.mark.parametrize("value", [None, "/etc/own.pem"], ids=["unset", "set by the user"])
def test_the_environment_is_afterwards_what_it_was(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ZeroDivisionError), without_authorities():
        raise ZeroDivisionError
    assert [os.environ.get(name) for name in PLACES] == [value, value]


def test_the_fork_server_loads_no_authorities_with_aiohttp() -> None:
    """The forking parent's own import, in a process that has not imported aiohttp yet."""
    script = """
import os, socket, sys
from kubewire.components.runtime import zygote
class Stop(Exception): pass
def stop(*_): raise Stop
zygote.fill_holes = stop
zygote.ns.set_parent_death_signal = lambda number: None
try:
    zygote.run(socket.socketpair()[0], "name", ("aiohttp",), None)
except Stop:
    pass
from aiohttp import connector
print(connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"], "SSL_CERT_FILE" in os.environ)
"""
    environment = {"PYTHONPATH": str(CHECKOUT / "src"), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0 False\n"
