"""A configuration that is read again while another one is being applied waits for it."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from tests.existing import existing
from tests.scratch import isolated

pytestmark = pytest.mark.packet

#: Each peer that is added waits until another thread applies a configuration too, or for half a second.
SLOW = """
import sys, threading
from kubewire.components.bgp import speaker
applying, another = [], threading.Event()
apply, add = speaker.Speaker._apply, speaker.Speaker._add
def counted(self, configuration):
    applying.append(self)
    if len(applying) == 2: another.set()
    apply(self, configuration)
def slow(self, peer):
    print("adding", flush=True)
    another.wait(0.5)
    add(self, peer)
speaker.Speaker._apply, speaker.Speaker._add = counted, slow
from kubewire.components.bgp.main import main
sys.exit(main(sys.argv[1:]))
"""
PEERS = [{"address": f"10.0.1.{host}", "remoteAS": 64512} for host in (2, 3)]
CONFIGURATION = {"localAS": 64512, "routerID": "10.0.1.1", "listen": ["0.0.0.0"], "peers": PEERS}


def test_sighup_during_the_first_configuration_waits_for_it():
    async def body():
        Path("/tmp/bgp.yaml").write_text(json.dumps(CONFIGURATION))
        arguments = ["-c", SLOW, "--config", "/tmp/bgp.yaml", "--control", "/tmp/bgp.ctl"]
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(30):
            await existing(daemon.stdout).readline()
            daemon.send_signal(signal.SIGHUP)
            # It answers only when both have been applied.
            reader, writer = await asyncio.open_unix_connection("/tmp/bgp.ctl")
            writer.write(b"configure\n")
            answer = (await reader.read()).decode()
            reader, writer = await asyncio.open_unix_connection("/tmp/bgp.ctl")
            writer.write(b"show protocols\n")
            protocols = (await reader.read()).decode()
            daemon.terminate()
            _, said = await daemon.communicate()
        return daemon.returncode, answer, protocols, said.decode()

    code, answer, protocols, said = isolated(lambda: asyncio.run(body()), timeout=50)
    assert (code, answer) == (0, "Reconfigured\n"), said
    assert [address for address in ("10.0.1.2", "10.0.1.3") if address in protocols] == ["10.0.1.2", "10.0.1.3"], said
