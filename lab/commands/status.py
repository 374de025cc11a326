"""`kubewire status`: which labs run, and what is in them."""

from __future__ import annotations

from pathlib import Path

from kubewire.components.runtime.api import Process, RuntimeApiError, RuntimeClient
from kubewire.lab.errors import LabError, UsageError, plain
from kubewire.lab.state import LabRecord, StateDirectory, all_labs, running
from kubewire.scenarios.engine.file.spec import LabSpec


def show(name: str | None) -> int:
    """A line per lab, or one lab in detail."""
    if name is not None:
        print(plain(detail(*running(name))))
        return 0
    labs = list(all_labs())
    if not labs:
        print("no labs; start one with: kubewire up")
    for state in labs:
        record = state.record()
        if record is None or not state.alive():
            print(f"{state.name}: dead (its record is in {state.path}; kubewire down --name {state.name} removes it)")
        else:
            what = LabSpec.parse(record.spec, str(state.path)).label()
            print(
                f"{state.name}: {'running' if record.ready else 'coming up'}, {what}, API https://127.0.0.1:{record.port}"
            )
    return 0


def detail(state: StateDirectory, record: LabRecord) -> str:
    """Hosts with their components and pods. Raises LabError when the lab does not answer (yet)."""
    if not record.hosts:
        raise UsageError(f"lab {state.name!r} is still coming up")
    try:
        with RuntimeClient(state.runtime_socket) as runtime:
            processes = runtime.list({})
    except (RuntimeApiError, TimeoutError) as error:
        raise LabError(f"lab {state.name!r} does not answer: {error}; look into {state.logs}/runtime.log") from error
    lines = [
        f"lab {state.name}: {LabSpec.parse(record.spec, str(state.path)).label()}",
        f"  API https://127.0.0.1:{record.port}  kubeconfig {state.kubeconfig}  logs {state.logs}/",
    ]
    for host in record.hosts:
        own = [p for p in processes if p.labels.get("host") == host.name]
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
    """Proportional set size of everything below PID 1, MiB: shared pages count once."""
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
