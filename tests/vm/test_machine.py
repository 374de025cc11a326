"""Virtual machines that really boot: what comes back, what they cannot do, and that nothing of them stays."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kubewire.components.kernel import features as kernel_features
from kubewire.vm import build
from kubewire.vm.cache import Built
from kubewire.vm.errors import Ended
from kubewire.vm.kernels.base import Boot, Kernel
from kubewire.vm.machine import Machine
from kubewire.vm.share import Job
from tests.vm.conftest import built
from tests.vm.waiting import until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SMALL = Boot(memory=512)
WITHIN = 120.0
Chosen = tuple[Kernel, Built]


def run(kernel: Chosen, job: Job, boot: Boot = SMALL, **about: object) -> tuple[int, str]:
    said: list[bytes] = []
    with Machine(*kernel, boot, jobs=[job], **about) as machine:  # type: ignore[arg-type]
        (pending,) = machine.pending
        code = machine.wait(pending, timeout=WITHIN, out=said.append, err=said.append)
    return code, b"".join(said).decode()


def test_exit_code_and_output_are_the_commands_own(kernel: Chosen) -> None:
    assert run(kernel, Job(["sh", "-c", "uname -r; exit 7"])) == (7, f"{kernel[1].release}\n")


def test_what_the_kernel_has_is_what_was_found_when_it_was_built(kernel: Chosen) -> None:
    assert kernel[1].features == build.probe(*kernel)
    assert kernel[1].features["ip_vs"]
    assert kernel[1].features["netem"]


def test_it_is_root_without_a_way_out_or_a_way_to_write_the_host(kernel: Chosen) -> None:
    script = "id -u; ls /sys/class/net; ip route; echo x >/etc/kubewire-was-here; mount -o remount,rw / ; exit 0"
    code, text = run(kernel, Job(["sh", "-c", script]))
    assert (code, text.split()[0]) == (0, "0")
    assert not re.search(r"\beth|\bvec|default", text)
    assert not Path("/etc/kubewire-was-here").exists()


def test_the_hosts_files_stay_as_they_are_even_when_the_guest_mounts_them_writable(kernel: Chosen) -> None:
    """hostfs mounted once more, writable, by the guest's root: the jail's mounts are read-only."""
    if kernel[0].name == "qemu":
        pytest.skip("hostfs is UML's")
    target = Path("/var/tmp/kubewire-was-here")
    code, text = run(kernel, Job(["sh", "-c", f"mount -t hostfs none /mnt && touch /mnt{target}"]))
    assert code != 0
    assert "Read-only file system" in text
    assert not target.exists()


def test_outputs_come_back(kernel: Chosen, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/earlier").write_text("kept")
    command = (
        f"cat {tmp_path}/results/earlier; mkdir {tmp_path}/results/captures; echo new >{tmp_path}/results/captures/a"
    )
    assert run(kernel, Job(["sh", "-c", command], outputs=[tmp_path / "results"])) == (0, "kept")
    assert (tmp_path / "results/captures/a").read_text() == "new\n"
    assert (tmp_path / "results/captures/a").stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    ("key", "said"),
    [("o", "ended without an answer"), ("b", "boots once"), ("c", "gave up: .*sysrq triggered crash")],
    ids=["off", "reboot", "panic"],
)
def test_a_machine_that_ends_without_an_answer_is_a_failure_with_its_last_words(
    any_kernel: Chosen, key: str, said: str
) -> None:
    with pytest.raises(Ended, match=said):
        run(any_kernel, Job(["sh", "-c", f"echo {key} >/proc/sysrq-trigger; sleep 100"]))


def test_a_warm_machine_runs_job_after_job_and_several_at_once(any_kernel: Chosen) -> None:
    with Machine(*any_kernel, SMALL, resident=True) as machine, ThreadPoolExecutor(3) as pool:
        first = pool.submit(machine.run, Job(["sh", "-c", "mkfifo /tmp/m; cat /tmp/m"]), timeout=WITHIN)
        second = pool.submit(
            machine.run,
            Job(["sh", "-c", "until [ -p /tmp/m ]; do sleep 0.1; done; echo >/tmp/m; exit 3"]),
            timeout=WITHIN,
        )
        assert (first.result(), second.result()) == (0, 3)
        assert machine.run(Job(["test", "-p", "/tmp/m"]), timeout=WITHIN) == 0  # it is still the same machine


def test_machines_run_side_by_side(any_kernel: Chosen) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda code: run(any_kernel, Job(["sh", "-c", f"exit {code}"]))[0], (4, 5)))
    assert found == [4, 5]


def test_a_command_that_takes_too_long_ends_with_its_machine(any_kernel: Chosen) -> None:
    with (
        Machine(*any_kernel, SMALL, jobs=[Job(["sleep", "1000"])]) as machine,
        pytest.raises(TimeoutError, match="longer than 1 s"),
    ):
        machine.wait(machine.pending[0], timeout=1.0)
    assert machine.ended()
    assert not machine.folder.exists()


_STARTER = """
import sys
from pathlib import Path
from vm import build
from kubewire.vm.kernels import named
from kubewire.vm.kernels.base import Boot
from kubewire.vm.machine import Machine
from kubewire.vm.share import Job
kernel = named(sys.argv[1])
with Machine(kernel, build.need(kernel), Boot(memory=512), jobs=[Job(["sh", "-c", "echo up; exec sleep 1000"])]) as m:
    print(m.folder, flush=True)
    m.wait(m.pending[0], out=lambda data: print(data.decode(), end="", flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "ctrl-C"])
def test_when_the_starter_ends_nothing_stays(any_kernel: Chosen, number: signal.Signals) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, any_kernel[0].name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert starter.stdout is not None
    folder = Path(starter.stdout.readline().strip())
    assert starter.stdout.readline() == "up\n"
    processes = _of(folder)
    assert processes
    starter.send_signal(number)
    starter.wait(60)
    until(lambda: not any(map(_lives, processes)), 60)
    until(lambda: not folder.exists(), 60)


def _lives(pid: int) -> bool:
    """Whether it still runs; what nobody has waited for (a container's PID 1 may not) has ended, too."""
    try:
        state: str = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def _of(folder: Path) -> set[int]:
    """The jail of a machine and everything below it."""
    parents: dict[int, int] = {}
    jail = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    jail = int(entry.name)
            except OSError:
                continue
    found = {jail}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def test_three_hours_pass_in_seconds(record_property: Callable[[str, object], None]) -> None:
    kernel = built("uml", record_property)
    began = time.monotonic()
    script = "import time; a = time.monotonic(); time.sleep(3 * 3600); print(round(time.monotonic() - a))"
    code, text = run(kernel, Job(["python3", "-c", script]), Boot(memory=512, virtual_time=True))
    assert (code, text) == (0, "10800\n")
    assert time.monotonic() - began < 300


def test_vector_registers_survive_the_turns_of_other_programs(kernel: Chosen) -> None:
    """OpenSSL and libc use the widest there are; one CPU takes turns, and UML carries them by ptrace(2)."""
    script = "for i in 1 2 3 4; do (for j in 1 2 3; do head -c 8000000 /dev/zero | sha512sum; done) & done; wait"
    code, text = run(kernel, Job(["sh", "-c", script]))
    expected = hashlib.sha512(bytes(8_000_000)).hexdigest()
    assert (code, text) == (0, f"{expected}  -\n" * 12)


def test_virtual_time_is_known_inside(record_property: Callable[[str, object], None]) -> None:
    kernel = built("uml", record_property)
    assert not kernel_features.has_virtual_time()
    ask = "from kubewire.components.kernel import features as f; print(f.has_virtual_time())"
    job = Job([sys.executable, "-c", ask], env=build.environment())
    for virtual in (False, True):
        boot = Boot(memory=512, virtual_time=virtual)
        assert run(kernel, job, boot, visible=build.code_folders()) == (0, f"{virtual}\n")


def test_the_readme_example_works(record_property: Callable[[str, object], None]) -> None:
    built("uml-stock", record_property)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "vm/README.md").read_text(), re.S)
    exec(compile(example, "vm/README.md", "exec"), {})


def test_no_folder_of_a_machine_is_left(any_kernel: Chosen) -> None:
    with Machine(*any_kernel, SMALL, resident=True) as machine:
        assert machine.run(Job(["true"]), timeout=WITHIN) == 0
        assert machine.folder.exists()
    assert not machine.folder.exists()
