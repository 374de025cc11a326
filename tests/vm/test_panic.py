"""Kernels that do not run here: noticed at once, told with the console's words and the cause, and remembered.

Shell scripts stand in for kernels; kubewire.vm.machine and kubewire.vm.jail are real.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubewire.lab.commands import virtual
from kubewire.lab.needs import doctor
from kubewire.vm import build, cache, console
from kubewire.vm.errors import BuildFailed, DoesNotRun, Ended, NotBuilt, Panicked
from kubewire.vm.kernels.base import Boot, Made, Program, Progress
from kubewire.vm.machine import Machine
from kubewire.vm.share import Job

SMALL = Boot(memory=16)
PANIC = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"
#: What User-mode Linux 6.1 says on a CPU with AMX.
TOO_LARGE = (
    f"Linux version 6.1\nuserspace - ptrace set fp regs failed, errno = 14\n{PANIC}\nCall Trace:\n [<6002d37a>] x\n"
)


@dataclass
class Script:
    """A kernel that is a shell script, in a file of its own: rewritten, it has another checksum."""

    path: Path
    name: str = "uml-stock"
    title: str = "a script"
    virtual_time: bool = False
    boot_seconds: float = 60.0
    of: str = "recipe"

    def recipe(self) -> str:
        return self.of

    def make(self, folder: Path, progress: Progress) -> Made:
        return Made("6.1-script", self.path)

    def program(self, built: cache.Built, boot: Boot) -> Program:
        return Program(["/bin/sh", str(self.path)], [str(self.path)], {})


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Not written yet; the cache is the test's own."""
    monkeypatch.setenv("KUBEWIRE_VM_CACHE", str(tmp_path / "cache"))
    return Script(tmp_path / "kernel.sh")


def says(script: Script, words: str, then: str) -> Script:
    """It says this on its console, then does that."""
    script.path.write_text(f"cat <<'END'\n{words}\nEND\n{then}\n")
    script.path.chmod(0o755)
    return script


def boot(script: Script, within: float = 20.0) -> None:
    built = cache.Built("6.1", str(script.path), 1, "", "", "", 1.0)
    with Machine(script, built, SMALL, jobs=[Job(["true"])]) as machine:
        machine.wait(machine.pending[0], timeout=within)


@pytest.mark.packet
@pytest.mark.parametrize(
    "then", ["exec sleep 1000", "kill -ABRT $$; exec sleep 1000", "exit 1"], ids=["hangs", "aborts", "ends"]
)
def test_a_kernel_that_panics_is_noticed_at_once_whatever_it_does_then(script: Script, then: str) -> None:
    began = time.monotonic()
    with pytest.raises(Panicked) as caught:
        boot(says(script, f"Linux version 6.1\nVFS: no root\n{PANIC}\nCall Trace:", then))
    assert time.monotonic() - began < 10
    assert caught.value.why == PANIC
    assert f"kernel gave up: {PANIC}" in str(caught.value)
    assert "  | VFS: no root" in str(caught.value)


@pytest.mark.packet
def test_a_kernel_that_ends_at_once_is_told_with_its_last_words(script: Script) -> None:
    began = time.monotonic()
    with pytest.raises(Ended, match=r"ended without an answer\n  \| no memory") as caught:
        boot(says(script, "no memory", "exit 1"))
    assert not isinstance(caught.value, Panicked)
    assert time.monotonic() - began < 10


@pytest.mark.packet
def test_a_panic_after_the_jobs_end_is_not_the_jobs(script: Script) -> None:
    says(script, "", f"cd /tmp/io/jobs/1; : >stdout; : >stderr; echo 3 >rc.new; mv rc.new rc; echo '{PANIC}'; sleep 1")
    built = cache.Built("6.1", str(script.path), 1, "", "", "", 1.0)
    with Machine(script, built, SMALL, jobs=[Job(["true"])]) as machine:
        assert machine.wait(machine.pending[0], timeout=20) == 3


@pytest.mark.packet
def test_a_kernel_that_hangs_without_a_word_is_given_up_before_the_probes_time_is_over(script: Script) -> None:
    says(script, "Linux version 6.1", "exec sleep 1000")
    script.boot_seconds = 0.5
    with pytest.raises(BuildFailed, match=r"was not up in 0.5 s\n  \| Linux version 6.1"):
        build.build(script, lambda _: None)
    assert build.refusal(script) == ""  # it may have been the machine's load: it is tried again


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (TOO_LARGE, "extended state .* larger than the 2696 bytes .* before 6.13 .* --kernel qemu"),
        (f"Linux version 6.1\n{PANIC}\n", "^Kernel panic - not syncing: Attempted to kill init!"),
        ("[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n", "Unable to mount root fs"),
        ("Linux version 6.1\nlogin:\n", "^$"),
    ],
    ids=["extended state", "unknown", "with a time", "no panic"],
)
def test_why_a_kernel_gave_up(words: str, why: str) -> None:
    assert re.search(why, console.why(words.splitlines()))


def test_a_panic_that_comes_in_pieces_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "console"
    watch = console.Watch(path)
    assert not watch.panicked()  # there is no file yet
    with path.open("w", buffering=1) as stream:
        stream.write("boot\nKernel panic - not")
        stream.flush()
        assert not watch.panicked()
        stream.write(" syncing: x")
        stream.flush()
        assert watch.panicked()
    watch.close()


def test_of_a_long_trace_the_lines_before_it_are_shown() -> None:
    lines = [f"line {number}" for number in range(40)] + [PANIC] + [f"trace {number}" for number in range(60)]
    shown = console.last_words(lines)
    assert lines[39] in shown
    assert PANIC in shown
    assert len(shown) <= 15


@pytest.fixture
def refused(script: Script, monkeypatch: pytest.MonkeyPatch) -> Script:
    """A kernel that was tried and panicked as on a CPU with AMX, as the only one there is."""
    says(script, TOO_LARGE, "exit 1")
    with pytest.raises(DoesNotRun, match="does not run on this machine"):
        build.build(script, lambda _: None)
    monkeypatch.setattr("kubewire.vm.build.Machine", _never)
    for module in ("kubewire.lab.commands.virtual", "kubewire.lab.needs.doctor"):
        monkeypatch.setattr(f"{module}.KERNELS", (script,))
    monkeypatch.setattr("kubewire.lab.commands.virtual.named", lambda name: script)
    return script


def _never(*_: object, **__: object) -> None:
    raise AssertionError("it was booted once more")


@pytest.mark.packet
def test_a_kernel_that_does_not_run_here_is_remembered(refused: Script) -> None:
    assert "extended state" in build.refusal(refused)
    assert build.find(refused) is None
    assert not build.to_be_asked(refused)
    with pytest.raises(NotBuilt, match="uml-stock does not run on this machine: this CPU's extended state"):
        build.need(refused)


@pytest.mark.packet
@pytest.mark.parametrize("change", ["kernel", "recipe", "machine"])
def test_what_is_remembered_holds_for_that_kernel_on_that_machine(
    refused: Script, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change == "kernel":
        refused.path.write_text("exit 2")
    elif change == "recipe":
        refused.of = "another"
    else:
        monkeypatch.setattr("kubewire.vm.cache.machine", lambda: "another")
    assert build.refusal(refused) == ""


@pytest.mark.packet
def test_the_tests_go_on_without_it_and_say_why_in_a_line(refused: Script, capfd: pytest.CaptureFixture[str]) -> None:
    virtual.kernel_for_tests()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("  - virtual machines: the kernel uml-stock does not run on this machine: this CPU's")
    assert line.endswith("their tests are skipped")


@pytest.mark.packet
def test_the_tests_go_on_when_it_is_found_out_only_then(
    script: Script, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    says(script, TOO_LARGE, "exit 1")
    monkeypatch.setattr("kubewire.lab.commands.virtual.KERNELS", (script,))
    monkeypatch.setattr("kubewire.lab.commands.virtual.named", lambda name: script)
    monkeypatch.setattr("kubewire.lab.commands.virtual.packages", lambda name: "")
    virtual.kernel_for_tests()
    assert "  - virtual machines: the kernel uml-stock does not run on this machine" in capfd.readouterr().err


@pytest.mark.packet
def test_doctor_and_status_show_it_without_booting(refused: Script, capsys: pytest.CaptureFixture[str]) -> None:
    report = "\n".join(doctor.report({}, doctor.vm_features(), doctor.vm_refusals()))
    assert "✗ uml-stock does not run on this machine: this CPU's extended state" in report
    assert "not built" not in report
    virtual.show()
    assert "does not run on this machine: this CPU's extended state" in capsys.readouterr().out


@pytest.mark.packet
def test_a_kernel_from_another_machines_cache_is_to_be_asked(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.path.write_text("")
    made = cache.Built(
        "6.1", str(script.path), 0, cache.sha256(script.path), script.recipe(), build.probes(), 1.0, {"veth": True}
    )
    folder = build.folder_of(script)
    folder.mkdir(parents=True)
    made.save(folder)
    cache.Verdict(made.path, made.sha256, made.recipe).save(folder)
    assert not build.to_be_asked(script)
    monkeypatch.setattr("kubewire.vm.cache.machine", lambda: "another")
    assert build.to_be_asked(script)
    assert build.find(script) == made  # it may well run


def test_a_machine_is_its_cpu_and_its_kernel() -> None:
    one = "processor\t: 0\nmodel name\t: A\nflags\t\t: fpu amx_tile\ncpu MHz\t: 1\n\nprocessor\t: 1\nmodel name\t: B\n"
    assert cache.cpu(one) == cache.cpu(one.replace("MHz\t: 1", "MHz\t: 2"))
    assert cache.cpu(one) != cache.cpu(one.replace("amx_tile", ""))
    assert cache.cpu(one)[3] == "A"


def test_a_user_may_not_write_roots_verdict_but_reads_it(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBEWIRE_VM_CACHE")
    monkeypatch.setattr("kubewire.vm.cache.SYSTEM", tmp_path / "root")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    script.path.write_text("")
    folder = tmp_path / "root" / script.name
    folder.mkdir(parents=True)
    cache.Verdict(str(script.path), cache.sha256(script.path), script.recipe(), "why").save(folder)
    assert build.refusal(script) == "why"
