"""The lab process inside the sandbox: bring-up, then the control socket until it is told to end.

`python -m lab.inside PROGRESS_FD STATE_DIRECTORY DOOR_FD attached|detached`: started by lab.launch.
"""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import BringUpFailed, LabError
from lab.sandbox import Progress, enter
from lab.state import StateDirectory

if TYPE_CHECKING:
    from lab.bringup import Lab

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}


def main(argv: list[str]) -> None:
    """Make the sandbox; does not return in the processes inside."""
    progress, state, door, mode = int(argv[0]), StateDirectory(Path(argv[1])), int(argv[2]), argv[3]

    def body(reporter: Progress) -> int:
        return run(state, socket.socket(fileno=door), reporter, attached=mode == "attached")

    enter(state.path, progress, body)


def run(state: StateDirectory, door: socket.socket, progress: Progress, *, attached: bool) -> int:
    """Bring the lab up, report, and serve until SIGTERM. Returns the exit code."""
    # Imported here: PID 1, forked before, stays small.
    from lab.bringup import Lab
    from scenarios.engine.spec import LabSpec

    record = state.record()
    assert record is not None
    lab = Lab(LabSpec.parse(record.spec, f"{state.path}/lab.json"), state, door, progress)
    if lab.spec.kubernetes:
        write_kubeconfig(lab, record.port)
    try:
        lab.bring_up()
    except BringUpFailed as error:
        fields = ("step", "reason", "node", "command", "output")
        progress.send(failed={name: getattr(error, name) for name in fields})
        return 1
    server = ControlServer(lab)
    ready = [asdict(host) for host in lab.host_records()]
    if attached:
        progress.send(ready=ready)
    elif not progress.release(ready=ready):
        return 1  # killed in the last moment: nobody knows of this lab
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    # It never ends before the process: nothing has to be looked for while nobody asks.
    threading.Thread(target=server.serve_forever, args=(86_400.0,), name="control", daemon=True).start()
    ended.wait()
    return 0


def write_kubeconfig(lab: Lab, port: int) -> None:
    """The administrator's kubeconfig (kubernetes-admin, group system:masters), through the door."""
    from components.machinery import kubeconfig

    pair = lab.authority.client("kubernetes-admin", ("system:masters",))
    credentials = kubeconfig.Credentials(
        server=f"https://127.0.0.1:{port}",
        ca=lab.authority.certificate,
        certificate=pair.certificate,
        key=pair.key,
    )
    path = lab.state.kubeconfig
    path.touch(mode=0o600)
    path.write_text(kubeconfig.dump(f"kubewire-{lab.state.name}", credentials, "kubernetes-admin"))


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """control.sock: one JSON request per line, one JSON answer: {"result": null} or {"error": text}.

    Operations: component (name, host, action kill|stop|start). The name "network" is all that the pod network runs on
    the host, whatever it is called.
    """

    daemon_threads = True

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        super().__init__(str(lab.state.control_socket), _Request)

    def answer(self, request: dict[str, Any]) -> None:
        """Do what a request asks for. Raises LabError that says what is possible, RuntimeApiError, TimeoutError."""
        if request.get("op") != "component":
            raise LabError(f"unknown operation {request.get('op')!r}; there is: component")
        name, host, action = (request.get(key) for key in ("name", "host", "action"))
        found = [one for one in self.lab.components if _is_meant(one, str(name), str(host))]
        if not found:
            known = ", ".join(sorted(self.lab.components))
            raise LabError(f"no component '{name}@{host}'; there are {known}")
        if action != "start" and action not in _SIGNALS:
            raise LabError(f"unknown action {action!r}; there are start, {', '.join(_SIGNALS)}")
        for component_id in found:
            if action == "start":
                self.lab.start_component(component_id)
            else:
                self.lab.signal_component(component_id, _SIGNALS[str(action)])


#: What nodes run besides their network.
_KUBERNETES = ("apiserver", "controllers", "scheduler", "kubelet", "kube-proxy")


def _is_meant(component_id: str, name: str, host: str) -> bool:
    own, _, where = component_id.partition("@")
    return where == host and (own not in _KUBERNETES if name == "network" else own == name)


class _Request(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        for line in self.rfile:
            try:
                server.answer(json.loads(line))
                answer: dict[str, Any] = {"result": None}
            except Exception as error:  # whatever it is, whoever asked waits for an answer
                answer = {"error": str(error) or type(error).__name__}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
