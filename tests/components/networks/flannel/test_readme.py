"""The README's example is true."""

import asyncio
import re
from pathlib import Path

import pytest

from kubewire.components.networks.flannel import netconf
from tests.components.networks.flannel.test_packets import Cluster
from tests.scratch import isolated

README = Path("components/networks/flannel/README.md").read_text()
MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


def block(kind):
    (text,) = re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)
    return text


def steps():
    """(command, expected output) of the console block."""
    parts = re.split(r"^a\$ (.*)\n", block("console"), flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def told(text):
    """Output without what differs between runs: MAC addresses, trailing blanks."""
    return [MAC.sub("MAC", line.rstrip()) for line in text.splitlines()]


@pytest.mark.packet
def test_the_example_says_what_happens():
    expected = [(command, told(output)) for command, output in steps()]
    assert len(expected) >= 6

    async def run():
        async with Cluster(block("json")) as cluster:
            return [(command, told(await cluster.a.sh(command))) for command, _ in expected]

    assert isolated(lambda: asyncio.run(run())) == expected


def test_the_configuration_is_accepted():
    assert netconf.parse(block("json")).backend_type == "vxlan"
