"""`--keep`: the lab of a failed case keeps running until the user has inspected it."""

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
    """Keeps labs. ask: shows a prompt and returns when the user has finished (default: waits for
    Enter on the terminal)."""

    progress: Progress
    ask: Callable[[str], None] | None = None
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, lab: LabHandle, result: CaseResult) -> None:
        """Reports commands to inspect the lab, and waits. Raises Interrupted if the user ends the
        run."""
        nodes = [host for host in lab.hosts() if host.is_node]
        node = sorted(nodes, key=lambda host: host.role != "worker")[0].name
        commands = (
            f"export KUBECONFIG={lab.kubeconfig}",
            f"kubectl get pods -o wide -n {result.namespace}",
            f"kubewire kubectl --name {lab.name} get events -A",
            f"kubewire node --name {lab.name} {node} -- iptables-save",
            f"kubewire node --name {lab.name} {node} -- tcpdump -ni any",
            f"ls {lab.state_dir}/logs",
        )
        with self._asking:  # one lab at a time
            self.progress.tell(LabKept(lab.name, commands))
            prompt = "Press Enter to end this lab and continue, ctrl-C to end the run. "
            (self.ask or self._wait_for_user)(prompt)

    def _wait_for_user(self, prompt: str) -> None:
        """Waits for Enter. Raises Interrupted if the run ends. This may be a thread, where signals
        are not delivered, so it polls."""
        if not sys.stdin.isatty():
            print(
                "Standard input is not a terminal: the lab stays until SIGINT ends the run.",
                flush=True,
            )
            self.progress.interrupted.wait()
            raise Interrupted
        print(prompt, end="", flush=True)
        while not self.progress.interrupted.is_set():
            if select.select([sys.stdin], [], [], 0.2)[0]:
                sys.stdin.readline()
                return
        raise Interrupted
