"""The lab process inside the sandbox: it brings the lab up and then serves the control socket until
it is told to end.

lab.launch starts it as `python -m kubewire.lab.bringup.inside PROGRESS_FD REQUEST_FD`. The request
(sandbox/request.py) says what to build. The sockets that lead in are inherited, so nothing inside
decides where the machine's side connects to.

The process has two rules. Nothing is undone step by step: if bring-up fails it ends, and with it
the sandbox (sandbox/process.py). And it does not poll, because a lab may run where idle time is
skipped (vm/README.md), and each timer that fires would stop that.
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
    """Make the sandbox. Does not return in the processes inside it."""
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
    """Bring the lab up, report it as ready, and serve until SIGTERM. Returns the exit code."""
    # Imported only here, so that PID 1, which was forked before, stays small.
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
        return 1  # the starter was killed in the last moment, so no command knows of this lab
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    # serve_forever polls for shutdown(), which is never called, so the interval may be long.
    control = threading.Thread(target=server.serve_forever, args=(86_400.0,), name="control")
    control.daemon = True
    control.start()
    ended.wait()
    return 0


def administrator(lab: Lab) -> dict[str, str]:
    """Certificates and key for the administrator's kubeconfig, in PEM: the user kubernetes-admin in
    the group system:masters, as kubeadm makes it."""
    pair = lab.authority.client("kubernetes-admin", ("system:masters",))
    parts = {"ca": lab.authority.certificate, "certificate": pair.certificate, "key": pair.key}
    return {name: part.decode() for name, part in parts.items()}


#: Bytes that a request to the control socket, which is one line, may have.
_LONGEST_REQUEST = 64 * 1024


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Serves control.sock. Each request and each answer is a line of JSON; an answer is
    {"result": null} or {"error": text}.

    There is one operation: component (name, host, action kill|stop|start). The name "network" means
    all processes of the pod network on the host, whatever their names are.
    """

    daemon_threads = True

    def __init__(self, lab: Lab, listener: socket.socket) -> None:
        """listener: a socket on which the machine's side has called bind and listen."""
        self.lab = lab
        super().__init__(listener.getsockname(), _Asked, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def answer(self, request: dict[str, Any]) -> None:
        """Execute a request. Raises LabError if it is malformed (the text names what is possible),
        RuntimeApiError or TimeoutError if the fork server does not execute it."""
        if request.get("op") != "component":
            raise LabError(
                f"unknown operation {request.get('op')!r}; the only operation is 'component'",
            )
        name, host, action = (request.get(key) for key in ("name", "host", "action"))
        components = self.lab.components.items()
        found = [key for key, component in components if _is_meant(component, str(name), str(host))]
        if not found:
            known = ", ".join(sorted(self.lab.components))
            raise LabError(f"no component '{name}@{host}'; the lab's components: {known}")
        if action != "start" and action not in _SIGNALS:
            actions = ", ".join(("start", *_SIGNALS))
            raise LabError(f"unknown action {action!r}; the actions are {actions}")
        for component_id in found:
            if action == "start":
                self.lab.start_component(component_id)
            else:
                self.lab.signal_component(component_id, _SIGNALS[str(action)])


#: This name in a request means all components with this role on the host.
_NETWORK = "network"


def _is_meant(component: ComponentSpec, name: str, host: str) -> bool:
    is_named = component.role.value == _NETWORK if name == _NETWORK else component.name == name
    return component.host == host and is_named


class _Asked(socketserver.StreamRequestHandler):
    """Handles one connection. The answer to any line is one line, and an error in one connection
    does not affect another."""

    def handle(self) -> None:
        server: Any = self.server
        with suppress(ConnectionError):
            while line := self.rfile.readline(_LONGEST_REQUEST + 1):
                if len(line) > _LONGEST_REQUEST:
                    self._say({"error": f"a request may have at most {_LONGEST_REQUEST} bytes"})
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
            return {"error": "a request must be a JSON object"}
        try:
            server.answer(request)
        except Exception as error:  # the client waits for an answer in every case
            return {"error": str(error) or type(error).__name__}
        return {"result": None}

    def _say(self, answer: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
