"""--keep: the lab of a failed case stays up until the user has looked around."""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from kubewire.scenarios.engine.events.results import CaseResult, LabKept
from kubewire.scenarios.engine.handle import LabHandle
from kubewire.scenarios.engine.run.progress import Progress
from kubewire.scenarios.engine.scene.scene import Interrupted


@dataclass
class Keeper:
    """ask: shows a prompt and returns when the user is done; default: waits at the terminal."""

    progress: Progress
    ask: Callable[[str], None] | None = None
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, lab: LabHandle, result: CaseResult) -> None:
        """Says how to look around, and waits. Raises Interrupted when the run is to end."""
        hosts = sorted((host for host in lab.hosts() if host.is_node), key=lambda host: host.role != "worker")
        commands = (
            f"export KUBECONFIG={lab.kubeconfig}",
            f"kubectl get pods -o wide -n {result.namespace}",
            f"kubewire kubectl --name {lab.name} get events -A",
            f"kubewire node --name {lab.name} {hosts[0].name} -- iptables-save",
            f"kubewire node --name {lab.name} {hosts[0].name} -- tcpdump -ni any",
            f"ls {lab.state_dir}/logs",
        )
        with self._asking:  # one lab after another
            self.progress.tell(LabKept(lab.name, commands))
            prompt = "Press Enter to go on, ctrl-C to end the run; the lab is torn down then. "
            (self.ask or self._wait_for_user)(prompt)

    def _wait_for_user(self, prompt: str) -> None:
        """Raises Interrupted when the run is to end, also in a thread, which no signal reaches."""
        if not sys.stdin.isatty():
            print("Not on a terminal: SIGINT ends the run and tears the lab down.", flush=True)
            self.progress.interrupted.wait()
            raise Interrupted
        print(prompt, end="", flush=True)
        while not self.progress.interrupted.is_set():
            if select.select([sys.stdin], [], [], 0.2)[0]:
                sys.stdin.readline()
                return
        raise Interrupted
