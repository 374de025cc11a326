"""A thread of os-ken's that dies ends the process: nobody else would tell that a speaker is half a speaker."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.scratch import isolated

pytestmark = pytest.mark.packet

#: The processor of routes fails at the first one.
FAILING = """
import sys
from os_ken.services.protocols.bgp import processor
def fail(self, *_): raise KeyError("a fault")
processor.BgpProcessor._process_dest = fail
"""
#: It fails before the speaker has started, and the speaker goes on only when os-ken's core has stopped.
BEFORE_THE_START = (
    FAILING
    + """
processor.BgpProcessor._run = fail
from os_ken.services.protocols.bgp import bgpspeaker, core_manager
start = bgpspeaker.BGPSpeaker._core_start
def and_wait(self, settings):
    start(self, settings)
    while core_manager.CORE_MANAGER.started: pass
bgpspeaker.BGPSpeaker._core_start = and_wait
"""
)
#: It fails while the configuration is applied.
IN_BETWEEN = (
    FAILING
    + """
from kubewire.components.bgp import speaker
apply = speaker.Speaker._apply
def and_wait(self, configuration):
    for one in configuration.announce: self._originate(one)
    while speaker.CORE_MANAGER.started: pass
    apply(self, configuration)
speaker.Speaker._apply = and_wait
"""
)
MAIN = """
from kubewire.components.bgp.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("broken", [FAILING, BEFORE_THE_START, IN_BETWEEN], ids=["first-route", "start", "apply"])
def test_the_process_ends_and_says_why(broken):
    async def body():
        configuration = {"localAS": 64512, "routerID": "10.0.1.1", "listen": ["0.0.0.0"], "announce": ["10.1.0.0/24"]}
        Path("/tmp/bgp.yaml").write_text(json.dumps(configuration))
        arguments = ["-c", broken + MAIN, "--config", "/tmp/bgp.yaml", "--control", "/tmp/bgp.ctl"]
        daemon = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            _, said = await daemon.communicate()
        return daemon.returncode, said.decode()

    code, said = isolated(lambda: asyncio.run(body()), timeout=50)
    assert code == 1
    assert "died: KeyError('a fault')" in f"\n{said}".rpartition("\nbgp: ")[2]
    assert "Traceback" not in said.rpartition("\nbgp: ")[2]
