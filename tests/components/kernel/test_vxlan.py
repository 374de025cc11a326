"""A VXLAN device in the kernel: made, left alone, set right in place, made again."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace

import pytest

from kubewire.components.kernel import vxlan
from kubewire.components.kernel.vxlan import VxlanDevice, any_address
from tests.scratch import isolated

WANTED = VxlanDevice(
    "vx0", 7, 8472, 1450, "172.18.0.3", "out0", "5e:00:00:00:00:01", addresses=("10.244.1.0/32",), master="br0"
)
ROUTED = replace(WANTED, link="", mac="", learning=True, udpcsum=True)
IPV6 = replace(WANTED, local="fd00:18::3", mtu=1430, addresses=("fd00:10:244:1::/128",))


def prepared() -> None:
    for line in (
        "link add out0 type bridge",
        "link add out1 type bridge",
        "address add 172.18.0.3/16 dev out0",
        "address add 172.18.0.9/16 dev out0",
        "address add fd00:18::3/64 dev out0 nodad",
        "link add br0 type bridge",
        "link set dev out0 up",
        "link set dev out1 up",
        "link set dev br0 up",
    ):
        subprocess.run(["ip", *line.split()], check=True)


def index() -> str:
    """A device that is made again has another one."""
    with open("/sys/class/net/vx0/ifindex") as file:
        return file.read()


def made_once(wanted: VxlanDevice, version: int) -> None:
    prepared()
    assert asyncio.run(vxlan.ensure(wanted, version, flags="nodad" if version == 6 else ""))
    before = index()
    found = asyncio.run(vxlan.read("vx0", version))
    assert found is not None
    assert vxlan.commands(wanted, found) == ""
    assert not asyncio.run(vxlan.ensure(wanted, version))
    assert index() == before


@pytest.mark.packet
@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        pytest.param(WANTED, 4, id="by an interface"),
        pytest.param(ROUTED, 4, id="by the route, with a MAC of the kernel's"),
        pytest.param(IPV6, 6, id="IPv6"),
        pytest.param(replace(WANTED, gbp=True, master=""), 4, id="group based policy"),
    ],
)
def test_it_is_made_as_wanted_and_then_left_alone(wanted: VxlanDevice, version: int) -> None:
    isolated(made_once, wanted, version)


def changed(other: VxlanDevice, again: bool) -> None:
    prepared()
    asyncio.run(vxlan.ensure(other, 4))
    before = index()
    assert asyncio.run(vxlan.ensure(WANTED, 4)) is again
    assert (index() != before) is again
    found = asyncio.run(vxlan.read("vx0", 4))
    assert found == WANTED


@pytest.mark.packet
@pytest.mark.parametrize(
    ("other", "again"),
    [
        pytest.param({"vni": 8}, True, id="VNI"),
        pytest.param({"port": 4789}, True, id="port"),
        pytest.param({"local": "172.18.0.9"}, True, id="source address"),
        pytest.param({"link": "out1"}, True, id="outer interface"),
        pytest.param({"learning": True}, True, id="learning"),
        pytest.param({"master": ""}, True, id="bridge"),
        pytest.param({"mtu": 1400}, False, id="MTU"),
        pytest.param({"mac": "5e:00:00:00:00:02"}, False, id="MAC"),
        pytest.param({"addresses": ("10.244.2.0/32", "10.244.3.0/24")}, False, id="addresses"),
    ],
)
def test_one_that_differs_is_set_right_or_made_again(other: dict[str, object], again: bool) -> None:
    isolated(changed, replace(WANTED, **other), again)  # type: ignore[arg-type]


def of_another_kind() -> None:
    prepared()
    subprocess.run(["ip", "link", "add", "vx0", "type", "bridge"], check=True)
    found = asyncio.run(vxlan.read("vx0", 4))
    assert found is not None and found.kind == "bridge"
    assert asyncio.run(vxlan.ensure(WANTED, 4))
    assert asyncio.run(vxlan.read("vx0", 4)) == WANTED


@pytest.mark.packet
def test_a_device_of_another_kind_gives_way() -> None:
    isolated(of_another_kind)


def test_addresses_of_others_stay() -> None:
    found = replace(WANTED, addresses=("10.244.1.0/32", "169.254.1.1/32", "10.244.9.0/32"))
    kept = vxlan.commands(WANTED, found, lambda address: address.startswith("10."))
    assert kept == "address delete 10.244.9.0/32 dev vx0\n"
    assert vxlan.commands(WANTED, found, any_address).count("address delete") == 2
