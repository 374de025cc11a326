"""Evaluates a Mininet Topo file, which is a program, without trusting it.

A lab file is data, and what a lab does stays in the lab. So the file that `topology.mininet` names
runs in a process of its own, which sees the system's programs, Python and its packages, and nothing
else: it writes no file, reaches no network and no socket, signals no other process, and has no
capabilities. It is bounded in time and memory. What it says is a description of hosts and links,
which is checked like the rest of the lab file.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from kubewire.components.base.sources import IMPORTED_FROM, VISIBLE
from kubewire.components.kernel import namespaces

_SECONDS = 20
_CPU_SECONDS = 10
_MEMORY = 1 << 30
_ANSWER = 1 << 20
#: The exit code when a signal ended the process that ran the file.
_KILLED = 128
_SYSTEM = ("/usr", "/bin", "/lib", "/lib64")
_UNSHARED = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWPID
)


class TopoFileError(ValueError):
    """Says what in the file is wrong, with its line."""


def evaluate(source: str, name: str, topo: str) -> dict[str, Any]:
    """The keys hosts and switches of a lab file, of the Topo in source. name: the file's, for
    errors.

    Raises TopoFileError.
    """
    request = json.dumps({"source": source, "name": name, "topo": topo})
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(IMPORTED_FROM), "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "kubewire.scenarios.engine.file.topofile"]
    try:
        done = subprocess.run(
            command,
            input=request.encode(),
            capture_output=True,
            env=environment,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TopoFileError(f"{name} did not make its Topo within {_SECONDS} s") from None
    if done.returncode == _KILLED:
        raise TopoFileError(
            f"{name} was ended: it may use {_CPU_SECONDS} s of processor time and 1 GiB of memory"
        )
    try:
        answer = json.loads(done.stdout[:_ANSWER].splitlines()[-1])
    except (ValueError, IndexError):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"exit code {done.returncode}"
        raise TopoFileError(f"{name} could not be evaluated: {why}") from None
    if "error" in answer:
        raise TopoFileError(answer["error"])
    found: dict[str, Any] = answer["topology"]
    return found


def main() -> int:
    """Reads the request from stdin, and writes the answer as the last line of stdout."""
    request = json.loads(sys.stdin.buffer.read())
    from kubewire.topologies import mininet_topo  # before nothing can be loaded any more

    out = os.dup(1)
    os.dup2(2, 1)  # what the file prints is not the answer
    uid, gid = os.getuid(), os.getgid()
    namespaces.unshare(_UNSHARED)
    # Without a map nobody owns anything, and a tmpfs has to belong to somebody
    # (user_namespaces(7)).
    for name, content in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        Path("/proc/self", name).write_text(content)
    inner = os.fork()  # the first process of the pid namespace
    if inner:
        code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
        return code if code >= 0 else _KILLED
    _lock_down()
    answer: dict[str, Any]
    try:
        scope: dict[str, Any] = {"__name__": "__topo__", "__file__": request["name"]}
        exec(compile(request["source"], request["name"], "exec"), scope)
        answer = {"topology": mininet_topo.mapping(mininet_topo.instance(scope, request["topo"]))}
        text = json.dumps(answer)
    except BaseException as error:
        text = json.dumps({"error": _problem(error, request["name"])})
    os.write(out, text.encode() + b"\n")
    return 0


def _lock_down() -> None:
    namespaces.set_parent_death_signal(9)
    namespaces.mount("", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
    _own_root()
    namespaces.without_rights()
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _own_root() -> None:
    """Changes to a root that has the system's programs, Python and its packages, all read-only."""
    shown = {Path(folder) for folder in _SYSTEM if Path(folder).is_dir()}
    shown |= {Path(sys.prefix), Path(sys.base_prefix), VISIBLE, IMPORTED_FROM}
    outermost = [
        folder
        for folder in shown
        if not any(folder != other and folder.is_relative_to(other) for other in shown)
    ]
    # They are opened before the new root covers them.
    opened = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in outermost}
    root = Path("/tmp")
    namespaces.mount("tmpfs", root, "tmpfs")
    for folder, descriptor in opened.items():
        target = root / folder.relative_to("/")
        target.mkdir(parents=True, exist_ok=True)
        namespaces.bind(f"/proc/self/fd/{descriptor}", target, recursive=True)
        os.close(descriptor)
    os.chdir(root)
    namespaces.pivot_root(".", ".")
    namespaces.unmount(".", lazy=True)
    namespaces.restrict("/")


def _problem(error: BaseException, name: str) -> str:
    """The error and the line of the file where it came up."""
    if isinstance(error, SyntaxError):
        return f"{name}:{error.lineno}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == name
    ]
    where = f"{name}:{lines[-1]}" if lines else name
    from kubewire.topologies.mininet_topo import TopoError

    kind = "" if isinstance(error, TopoError) else f"{type(error).__name__}: "
    return f"{where}: {kind}{error}"


if __name__ == "__main__":
    sys.exit(main())
