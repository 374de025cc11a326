"""The lab process inside the sandbox: bring-up, then the control socket until it is told to end.

lab.launch starts it as `python -m kubewire.lab.bringup.inside PROGRESS_FD REQUEST_FD`. The request (sandbox/request.py)
says what to build. The sockets that lead in are inherited, so that nothing inside decides where the machine's side
connects to.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kubewire.lab.errors import BringUpFailed, LabError
from kubewire.lab.sandbox.process import Progress, enter
from kubewire.lab.sandbox.request import Request

if TYPE_CHECKING:
    from kubewire.lab.bringup.components import ComponentSpec
    from kubewire.lab.bringup.steps import Lab

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGTERM}


def main(argv: list[str]) -> None:
    """Make the sandbox; does not return in the processes inside."""
    progress = int(argv[0])
    with os.fdopen(int(argv[1]), "rb") as stream:
        request = Request.parse(stream.read())
    enter(
        request.contents,
        progress,
        request.doors,
        lambda reporter: run(request, reporter),
        host_users=request.host_users,
    )


def run(request: Request, progress: Progress) -> int:
    """Bring the lab up, report, and serve until SIGTERM. Returns the exit code."""
    # Imported here: PID 1, forked before, stays small.
    from kubewire.lab.bringup.steps import Lab
    from kubewire.scenarios.engine.file.spec import LabSpec

    spec = LabSpec.parse(request.spec, "lab.json")
    lab = Lab(spec, request.name, request.doors, progress)
    if lab.spec.kubernetes:
        progress.send(administrator=administrator(lab))
    try:
        lab.bring_up()
    except BringUpFailed as error:
        progress.send(failed=error.fields())
        return 1
    server = ControlServer(lab, request.doors.control)
    ready = [asdict(host) for host in lab.host_records()]
    if request.attached:
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


def administrator(lab: Lab) -> dict[str, str]:
    """What the administrator's kubeconfig is made of: kubernetes-admin of group system:masters, in PEM."""
    pair = lab.authority.client("kubernetes-admin", ("system:masters",))
    parts = {"ca": lab.authority.certificate, "certificate": pair.certificate, "key": pair.key}
    return {name: part.decode() for name, part in parts.items()}


#: A request to the control socket is one line of at most so many bytes.
_LONGEST_REQUEST = 64 * 1024


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """control.sock: one JSON request per line, one JSON answer: {"result": null} or {"error": text}.

    Operations: component (name, host, action kill|stop|start). The name "network" is all that the pod network runs on
    the host, whatever it is called.
    """

    daemon_threads = True

    def __init__(self, lab: Lab, listener: socket.socket) -> None:
        """listener: bound and listening, by the machine's side."""
        self.lab = lab
        super().__init__(listener.getsockname(), _Asked, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def answer(self, request: dict[str, Any]) -> None:
        """Do what a request asks for. Raises LabError that says what is possible, RuntimeApiError, TimeoutError."""
        if request.get("op") != "component":
            raise LabError(f"unknown operation {request.get('op')!r}; there is: component")
        name, host, action = (request.get(key) for key in ("name", "host", "action"))
        components = self.lab.components.items()
        found = [key for key, component in components if _is_meant(component, str(name), str(host))]
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


#: In a request it stands for all components of this role on the host.
_NETWORK = "network"


def _is_meant(component: ComponentSpec, name: str, host: str) -> bool:
    is_named = component.role.value == _NETWORK if name == _NETWORK else component.name == name
    return component.host == host and is_named


class _Asked(socketserver.StreamRequestHandler):
    """A connection. Whatever a line holds, the answer is one line; a peer that goes away ends only itself."""

    def handle(self) -> None:
        server: Any = self.server
        with suppress(ConnectionError):
            while line := self.rfile.readline(_LONGEST_REQUEST + 1):
                if len(line) > _LONGEST_REQUEST:
                    self._say({"error": f"a request has at most {_LONGEST_REQUEST} bytes"})
                    return
                self._say(self._answer(server, line))

    def _answer(self, server: Any, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line.decode())
        except ValueError as error:
            return {"error": f"not JSON: {error}"}
        except RecursionError:
            return {"error": "not JSON: nested too deeply"}
        if not isinstance(request, dict):
            return {"error": "a request is a JSON object"}
        try:
            server.answer(request)
        except Exception as error:  # whatever it is, whoever asked waits for an answer
            return {"error": str(error) or type(error).__name__}
        return {"result": None}

    def _say(self, answer: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
