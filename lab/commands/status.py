"""`kubewire status`: lists the labs, or the hosts, components and memory of one."""

from __future__ import annotations

from pathlib import Path

from kubewire.components.runtime.api import Process, RuntimeApiError, RuntimeClient
from kubewire.lab.errors import LabError, UsageError, plain
from kubewire.lab.state import LabRecord, StateDirectory, all_labs, running
from kubewire.scenarios.engine.file.spec import LabSpec


def show(name: str | None) -> int:
    """Print a line for each lab, or one lab in detail."""
    if name is not None:
        print(plain(detail(*running(name))))
        return 0
    labs = list(all_labs())
    if not labs:
        print("no labs; start one with: kubewire up")
    for state in labs:
        record = state.record()
        if record is None or not state.alive():
            removes = f"kubewire down --name {state.name}"
            print(f"{state.name}: dead; its logs are in {state.logs}; `{removes}` removes it")
        else:
            label = LabSpec.parse(record.spec, str(state.path)).label()
            stage = "running" if record.ready else "coming up"
            print(f"{state.name}: {stage}, {label}, API https://127.0.0.1:{record.port}")
    return 0


def detail(state: StateDirectory, record: LabRecord) -> str:
    """The hosts with their components, and the memory of the lab. Raises LabError if the lab does
    not answer, UsageError if it is still coming up."""
    if not record.hosts:
        raise UsageError(f"lab {state.name!r} is still coming up; try again in a moment")
    try:
        with RuntimeClient(state.runtime_socket) as runtime:
            processes = runtime.list({})
    except (RuntimeApiError, TimeoutError) as error:
        log = state.logs / "runtime.log"
        raise LabError(f"lab {state.name!r} does not answer: {error}; see {log}") from error
    lines = [
        f"lab {state.name}: {LabSpec.parse(record.spec, str(state.path)).label()}",
        f"  API https://127.0.0.1:{record.port}  kubeconfig {state.kubeconfig}  logs {state.logs}/",
    ]
    for host in record.hosts:
        own = [process for process in processes if process.labels.get("host") == host.name]
        parts = ", ".join(_component(process) for process in own)
        addresses = " ".join(filter(None, (host.address, host.secondary)))
        lines.append(f"  {host.name:<14} {host.role:<13} {addresses:<15} {parts}")
    containers = [p for p in processes if "component" not in p.labels and p.running]
    lines.append(f"  {len(containers)} container processes, {_memory(record.init_pid)} MiB in all")
    return "\n".join(lines)


def _component(process: Process) -> str:
    name = process.labels["component"]
    if process.exit is None:
        return name
    return f"{name} (ended, code {process.exit.shell_code})"


def _memory(init: int) -> int:
    """Memory of all processes below PID 1, in MiB: their proportional set size, which counts a
    shared page once (proc_pid_smaps(5))."""
    total = 0
    for pid in _descendants(init):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total // 1024


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for current in found:
        try:
            for task in Path(f"/proc/{current}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found
