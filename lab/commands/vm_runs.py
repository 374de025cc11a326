"""Runs scenarios that this kernel cannot run in virtual machines, for `kubewire run --vm`.

Implements the engine's protocol Elsewhere (engine/events/options.py). A machine runs an inner
`kubewire run`, which writes its events to a file. They are read while it runs and handed to the
outer run, so that its report looks as if all scenarios had run here.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event as Flag

from kubewire.components.kernel.features import VIRTUAL_TIME
from kubewire.lab.commands import virtual
from kubewire.lab.errors import LabError
from kubewire.scenarios.engine.cli import CATALOGUE
from kubewire.scenarios.engine.events.exchange import decode
from kubewire.scenarios.engine.events.results import CaseFinished, Event
from kubewire.scenarios.engine.file.model import Case
from kubewire.vm import build
from kubewire.vm.errors import Ended, NotBuilt, VMError
from kubewire.vm.kernels import named
from kubewire.vm.kernels.base import Boot
from kubewire.vm.machine import Machine
from kubewire.vm.share import Follower, Job, collect

MEMORY = 2048
_VIRTUAL = f", {VIRTUAL_TIME}"


class Stopped(RuntimeError):
    """The outer run was stopped before the machine had finished."""


class VirtualMachines:
    """Implements Elsewhere. A place is the name of a kernel, followed by ", virtual time" if idle
    time is skipped. wanted: "auto", or the name of a kernel."""

    def __init__(self, wanted: str = virtual.AUTO) -> None:
        self.wanted = wanted

    def place(self, case: Case) -> str:
        """Elsewhere.place."""
        needs = virtual.needs_of([case])
        try:
            kernel = virtual.choose(self.wanted, needs)
        except (LabError, VMError):
            return ""
        built = build.need(kernel)
        if virtual.lacking(kernel, built, needs):
            return ""
        return kernel.name + (_VIRTUAL if needs.virtual_time else "")

    def advice(self, case: Case) -> str:
        """Elsewhere.advice: a command line that works in the current folder."""
        file = case.scenario.file
        in_catalogue = file.resolve().is_relative_to(CATALOGUE.resolve())
        name = case.scenario.name if in_catalogue else str(file)
        line = f"kubewire vm run -- run {name}"
        try:
            virtual.choose(virtual.AUTO, virtual.needs_of([case]))
        except NotBuilt:
            return f"kubewire vm build && {line}"
        except (LabError, VMError):
            return ""
        return line

    def run(
        self,
        place: str,
        cases: Sequence[Case],
        results: Path,
        tell: Callable[[Event], None],
        stopping: Flag,
    ) -> None:
        """Elsewhere.run: boot one machine and run all cases in it by one `kubewire run`, passing
        its events on while it runs."""
        kernel = named(place.removesuffix(_VIRTUAL))
        boot = Boot(MEMORY, virtual.cpus(kernel), place.endswith(_VIRTUAL))
        folder = Path(tempfile.mkdtemp(prefix="kubewire-vm-"))
        files = list(dict.fromkeys(str(case.scenario.file.resolve()) for case in cases))
        command = [
            "run",
            *files,
            "--results",
            f"{folder}/results",
            "--events",
            f"{folder}/events",
            "--quiet",
        ]
        command += [word for case in cases for word in ("--only", case.id)]
        job = Job(
            [sys.executable, "-m", "kubewire.lab", *command],
            str(Path.cwd()),
            build.environment(),
            [folder],
        )
        try:
            visible = virtual.visible(files)
            with Machine(kernel, build.need(kernel), boot, visible=visible, jobs=[job]) as machine:
                self._follow(machine, cases, tell, stopping)
            _captures(folder / "results/captures", results / "captures")
        except (Ended, VMError) as error:
            raise RuntimeError(str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _follow(
        self,
        machine: Machine,
        cases: Sequence[Case],
        tell: Callable[[Event], None],
        stopping: Flag,
    ) -> None:
        (job,) = machine.pending
        events = Follower(job / "outputs/0/events")
        pending = b""
        by_id = {case.id: case for case in cases}
        output: list[bytes] = []
        finished: set[str] = set()

        def look() -> None:
            nonlocal pending
            if stopping.is_set():
                raise Stopped("stopped")
            while data := events.read():
                *lines, pending = (pending + data).split(b"\n")
                for event in (decode(line.decode(), by_id) for line in lines):
                    if isinstance(event, CaseFinished):
                        finished.add(event.result.case.id)
                    tell(event)

        try:
            code = machine.wait(job, out=output.append, err=output.append, look=look)
            look()
        except (LookupError, TypeError, ValueError) as error:
            raise RuntimeError(f"the virtual machine sent a malformed event: {error}") from error
        finally:
            events.close()
        if code not in (0, 1) or finished != by_id.keys():
            missing = ", ".join(sorted(by_id.keys() - finished))
            without = f" without a result of {missing}" if missing else ""
            end_of_output = b"".join(output)[-2000:].decode(errors="replace")
            raise RuntimeError(f"exit code {code}{without}: {end_of_output}")


def _captures(source: Path, target: Path) -> None:
    if source.is_dir():
        collect(source, target)
