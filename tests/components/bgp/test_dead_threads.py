"""A thread of os-ken's that dies ends the process: nobody else would tell that a speaker is half a speaker."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.components.bgp.fabric import PROJECT
from tests.scratch import isolated

pytestmark = pytest.mark.packet

#: The processor of routes fails at the first one.
BROKEN = """
import sys
from os_ken.services.protocols.bgp import processor
def fail(self): raise KeyError("a fault")
processor.BgpProcessor._process_dest = fail
from components.bgp.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_process_ends_and_says_why():
    async def body():
        configuration = {"localAS": 64512, "routerID": "10.0.1.1", "listen": ["0.0.0.0"], "announce": ["10.1.0.0/24"]}
        Path("/tmp/bgp.yaml").write_text(json.dumps(configuration))
        arguments = ["-c", BROKEN, "--config", "/tmp/bgp.yaml", "--control", "/tmp/bgp.ctl"]
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stderr=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(PROJECT)}
        )
        async with asyncio.timeout(30):
            _, said = await daemon.communicate()
        return daemon.returncode, said.decode()

    code, said = isolated(lambda: asyncio.run(body()), timeout=50)
    assert code == 1
    assert "\nbgp: " in f"\n{said}"
    assert "Traceback" not in said.rpartition("\nbgp: ")[2]
