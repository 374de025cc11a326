"""NFLOG on packets: what a rule logs is received, with its prefix and mark."""

from __future__ import annotations

import select
import socket
import subprocess

import pytest

from kubewire.components.kernel.nflog import Logged, LogSocket
from tests.scratch import isolated


@pytest.mark.packet
def test_what_a_rule_logs_is_received() -> None:
    assert isolated(_logged) == ("denied", 7, b"hello")


def _logged() -> tuple[str, int, bytes]:
    rules = ("-j MARK --set-mark 7", "-j NFLOG --nflog-group 86 --nflog-prefix denied")
    for rule in rules:
        subprocess.run(["iptables", "-t", "mangle", "-A", "OUTPUT", "-p", "udp", *rule.split()], check=True)
    with LogSocket(86) as packets, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        assert list(packets.received()) == []
        sender.sendto(b"hello", ("127.0.0.1", 9))
        assert select.select([packets], [], [], 15.0)[0]
        (found,) = packets.received()
        assert isinstance(found, Logged) and found.outgoing == 1
        return found.prefix, found.mark, found.data[28:]


@pytest.mark.packet
def test_a_group_has_one_reader() -> None:
    assert isolated(_second) == "refused: NFLOG group 86"


def _second() -> str:
    with LogSocket(86):
        try:
            LogSocket(86)
        except OSError as error:
            return f"refused: {str(error).split(': ')[1]}"
    return "both"
