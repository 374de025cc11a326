"""Datagrams: whole, once, and of the other peer only; MACs behind peers; ways chosen by what is heard."""

import asyncio
from typing import Any, cast

import pytest

from kubewire.components.networks.weave import sleeve, wire
from kubewire.components.networks.weave.mesh import Connection, Timing
from kubewire.components.networks.weave.overlay import FASTDP, SLEEVE, Overlay
from kubewire.components.networks.weave.sleeve import Macs, Tunnel, Window
from kubewire.components.networks.weave.wire import Hello, Session

A, B = "0a:00:00:00:00:0a", "0a:00:00:00:00:0b"


def tunnels(key):
    return Tunnel(7, key, A, B), Tunnel(7, key, B, A)


@pytest.mark.parametrize("key", [b"", b"k" * 32], ids=["in clear", "sealed"])
def test_a_frame_arrives_as_it_was_and_once(key):
    one, other = tunnels(key)
    datagrams = [one.pack(sleeve.FRAME, bytes([number]) * 1390) for number in range(5)]
    assert sleeve.tag_of(datagrams[0]) == 7
    for number in (0, 2, 1, 4, 3):
        assert other.unpack(datagrams[number]) == (sleeve.FRAME, bytes([number]) * 1390)
    assert all(other.unpack(datagram) is None for datagram in datagrams), "repeated"
    assert (b"\1" * 100 in datagrams[1]) == (not key)


def test_what_somebody_else_has_written_does_not_open():
    one, other = tunnels(b"k" * 32)
    datagram = bytearray(one.pack(sleeve.FRAME, b"frame"))
    assert one.unpack(bytes(datagram)) is None, "sent back"
    for position in (3, 12, 20):
        changed = bytearray(datagram)
        changed[position] ^= 1
        assert other.unpack(bytes(changed)) is None
    stranger, _ = tunnels(b"x" * 32)
    assert other.unpack(stranger.pack(sleeve.FRAME, b"frame")) is None
    assert other.unpack(bytes(datagram)) == (sleeve.FRAME, b"frame")


def test_a_window_takes_each_counter_once_and_nothing_far_behind():
    window = Window()
    assert all(window.takes(number) for number in (5, 3, 4, 5000, 4999))
    assert not any(window.takes(number) for number in (5, 5000, 4999, 4999 - 1024))
    assert window.takes(4500)
    assert all(window.takes(number) for number in range(6000, 12000))
    assert len(window.seen) <= 2 * 1024 + 1, "it does not grow"


def test_short_datagrams_are_nobodys():
    for length in range(17):
        assert sleeve.tag_of(bytes(length)) == 0


def test_macs_are_learned_and_forgotten():
    macs = Macs()
    mac, own, broadcast = bytes.fromhex("020000000001"), bytes.fromhex("020000000002"), b"\xff" * 6
    macs.learn(own + mac + bytes(50), "peer")
    macs.learn(own + b"\x01\0\0\0\0\0" + bytes(50), "peer")
    assert macs.behind(mac + own) == "peer"
    assert macs.behind(broadcast + own) == macs.behind(own + mac) == ""
    assert macs.forget("peer") == ["02:00:00:00:00:01"]
    assert macs.behind(mac + own) == ""


class Writer:
    def is_closing(self):
        return True


def connection():
    hello = Hello(B, "b", 1, 5)
    return Connection(hello, "192.0.2.1:6783", True, 2, Session(b"", outbound=True), cast(Any, Writer()))


@pytest.mark.parametrize(
    ("heard", "ways"),
    [
        ([(0.0, wire.FAST_HEARD)], [FASTDP]),
        ([(0.0, wire.SLEEVE_HEARD)], [""]),
        ([(0.0, wire.SLEEVE_HEARD), (2.0, wire.SLEEVE_HEARD)], ["", SLEEVE]),
        ([(0.0, wire.SLEEVE_HEARD), (2.0, wire.SLEEVE_HEARD), (3.0, wire.FAST_HEARD)], ["", SLEEVE, FASTDP]),
        ([(0.0, wire.FAST_HEARD), (5.0, wire.SLEEVE_HEARD), (7.0, wire.SLEEVE_HEARD)], [FASTDP, FASTDP, SLEEVE]),
    ],
    ids=["VXLAN at once", "datagrams wait for VXLAN", "and are taken then", "until VXLAN comes", "or when it is lost"],
)
def test_which_way_is_taken(monkeypatch, heard, ways):
    told: list[bool] = []
    clock = {"now": 0.0}
    monkeypatch.setattr("kubewire.components.networks.weave.overlay.time.monotonic", lambda: clock["now"])
    overlay = Overlay(A, Timing(heartbeat=1, lost=6), lambda: told.append(True))
    one = connection()
    overlay.begin(one)
    seen = []
    for when, kind in heard:
        clock["now"] = when
        overlay.heard(one, kind)
        seen.append(one.way)
    assert seen == ways
    assert len(told) == len([one for one, before in zip(ways, ["", *ways], strict=False) if one != before])


def test_many_peers_are_asked_less_often():
    timing = Timing()
    assert (timing.interval(3), timing.patience(3)) == (1.0, 6.0)
    assert (timing.interval(100), timing.patience(100)) == (5.0, 30.0)


def test_an_overlay_without_sockets_is_closed_without_complaint():
    async def body():
        Overlay(A, Timing(), lambda: None).close()

    asyncio.run(body())
