"""The README's example is true."""

import asyncio
import re
from pathlib import Path

import pytest
import yaml

from kubewire.components.bgp import config
from tests.components.bgp.fabric import until
from tests.components.bgp.routers import Bird
from tests.components.bgp.test_sessions import both_up, racks
from tests.scratch import isolated

README = Path("components/bgp/README.md").read_text()
TIME = re.compile(r"\d\d:\d\d:\d\d\.\d{3}")


def block(kind):
    (text,) = re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)
    return text


def steps():
    parts = re.split(r"^\$ (.*)\n", block("console"), flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def told(text):
    return TIME.sub("TIME", text)


def test_the_example_is_a_configuration():
    assert [peer.name for peer in config.parse(block("yaml")).peers] == ["tor1", "tor2"]


@pytest.mark.packet
def test_the_example_says_what_happens():
    async def run():
        node, tors = await racks(Bird, 2)
        for tor in tors:
            await tor.start()
        await node.start_daemon(yaml.safe_load(block("yaml")))
        await both_up(node, tors)

        async def both():
            return await node.kernel_routes() == {"172.30.0.0/16": ["10.0.1.2", "10.0.2.2"]}

        await until(both, "both next hops")
        return [(question, told(await node.ask(question))) for question, _ in steps()]

    assert isolated(lambda: asyncio.run(run())) == [(question, told(answer)) for question, answer in steps()]
