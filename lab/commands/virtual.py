"""`kubewire vm`: kubewire's own command lines, or any program, in a virtual machine (vm/README.md)."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import termios
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.components.kernel import features as kernel_features
from kubewire.lab.errors import LabError, UsageError
from kubewire.lab.setup import machine as debian
from kubewire.vm import build, cache
from kubewire.vm.errors import BuildFailed, Ended, NotBuilt, Untrusted, VMError
from kubewire.vm.kernels import KERNELS, named
from kubewire.vm.kernels.base import Boot, Kernel, packages
from kubewire.vm.machine import Machine, running
from kubewire.vm.share import Job

if TYPE_CHECKING:
    from kubewire.scenarios.engine.file.model import Case

AUTO = "auto"
CHOICES = (AUTO, *(kernel.name for kernel in KERNELS))
#: What the tests boot; QEMU takes minutes, and is measured in benchmarks/.
TESTED = ("uml", "uml-stock")
#: What a lab with all defaults needs of a kernel, beyond what every lab does.
_LAB = (*(name for name, feature in kernel_features.FEATURES.items() if feature.needed), "vxlan")


@dataclass(frozen=True)
class Needs:
    """What a command line needs of a kernel: features, and whether it wants time to be skipped."""

    features: tuple[str, ...] = ()
    virtual_time: bool = False


def needs_of(cases: Iterable[Case]) -> Needs:
    """Of scenarios; virtual time when each of them wants it."""
    chosen = list(cases)
    features = dict.fromkeys(name for case in chosen for name in case.requires)
    virtual = kernel_features.VIRTUAL_TIME
    skipping = [virtual in case.requires for case in chosen]
    return Needs((*_LAB, *(name for name in features if name != virtual)), bool(skipping) and all(skipping))


def choose(wanted: str, needs: Needs) -> Kernel:
    """The lightest kernel that is built and has what is needed, or the wanted one. Raises UsageError, NotBuilt."""
    if wanted != AUTO:
        kernel = named(wanted)
        if needs.virtual_time and not kernel.virtual_time:
            raise UsageError(f"the kernel {kernel.name} has no virtual time; leave --kernel out, or give --kernel uml")
        build.need(kernel)
        return kernel
    for kernel in KERNELS:
        if (built := build.find(kernel)) and not lacking(kernel, built, needs):
            return kernel
    known = {kernel: build.find(kernel) for kernel in KERNELS}
    refused = {kernel: build.refusal(kernel) for kernel, one in known.items() if one is None}
    if unbuilt := [kernel.name for kernel, why in refused.items() if not why]:
        raise NotBuilt(
            f"no virtual machine's kernel here has it; build one first: kubewire vm build --kernel {unbuilt[0]}"
        )
    why_not = [f"{kernel.name} lacks {', '.join(lacking(kernel, one, needs))}" for kernel, one in known.items() if one]
    why_not += [f"{kernel.name} does not run on this machine" for kernel in refused]
    raise UsageError(f"no virtual machine's kernel has it: {'; '.join(why_not)}")


def lacking(kernel: Kernel, built: cache.Built, needs: Needs) -> list[str]:
    """What of it a kernel has not."""
    missing = [name for name in needs.features if not built.features.get(name)]
    return missing + ([kernel_features.VIRTUAL_TIME] if needs.virtual_time and not kernel.virtual_time else [])


def run(options: argparse.Namespace, parse: Callable[[Sequence[str]], argparse.Namespace | None]) -> int:
    """`kubewire vm run -- COMMAND ...`: the command's exit code. parse: of kubewire's own command lines, else None."""
    command = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    if not command:
        raise UsageError("what should run in it? kubewire vm run -- run SCENARIO, or any command")
    inner = parse(command)
    needs, outputs = _of_kubewire(inner)
    virtual = options.virtual_time or needs.virtual_time
    kernel = _chosen(options.kernel, Needs(needs.features, virtual))
    boot = Boot(options.memory, cpus(kernel), virtual)
    argv = [sys.executable, "-m", "kubewire.lab", *command] if inner else command
    job = Job(argv, str(Path.cwd()), build.environment(), [path.resolve() for path in (*outputs, *options.output)])
    return _guarded(lambda: _run_job(kernel, boot, job, visible(command), options.timeout))


def _run_job(kernel: Kernel, boot: Boot, job: Job, seen: Sequence[Path], timeout: float | None) -> int:
    with Machine(kernel, build.need(kernel), boot, visible=seen, jobs=[job]) as machine:
        (pending,) = machine.pending
        return machine.wait(pending, timeout=timeout, out=_to(1), err=_to(2))


def _to(descriptor: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]

    return write


def _of_kubewire(inner: argparse.Namespace | None) -> tuple[Needs, list[Path]]:
    """What a command line of kubewire needs, and where it writes reports."""
    if inner is None:
        return Needs(), []
    outputs = [inner.results] if hasattr(inner, "results") else []
    if not hasattr(inner, "scenarios"):
        return Needs(_LAB), outputs
    from kubewire.scenarios.engine import cli as engine
    from kubewire.scenarios.engine.file.document import SpecError

    try:
        return needs_of(engine.cases_of(inner)), outputs
    except (SpecError, ValueError, OSError) as error:
        raise UsageError(str(error)) from None


def visible(command: Sequence[str] = ()) -> list[Path]:
    """Folders that a command line needs: the code, the working folder, and what its words name."""
    named_ = [Path(word).resolve() for word in command if "/" in word and Path(word).exists()]
    return [*build.code_folders(), Path.cwd(), *(path if path.is_dir() else path.parent for path in named_)]


def shell(options: argparse.Namespace) -> int:
    """`kubewire vm shell`: a shell on this terminal."""
    if not sys.stdin.isatty():
        raise UsageError("kubewire vm shell needs a terminal; without one: kubewire vm run -- COMMAND")
    kernel = _chosen(options.kernel, Needs(virtual_time=options.virtual_time))
    boot = Boot(options.memory, cpus(kernel), options.virtual_time, terminal=True)
    folder = str(Path.cwd())

    def work() -> int:
        with Machine(
            kernel, build.need(kernel), boot, visible=visible(), shell=["bash", "-l"], workdir=folder
        ) as machine:
            return machine.attend()

    with _terminal_as_before():
        return _guarded(work)


@contextlib.contextmanager
def _terminal_as_before() -> Iterator[None]:
    """A machine has the terminal in raw mode, and may end without putting it back."""
    before = termios.tcgetattr(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def make(options: argparse.Namespace) -> int:
    """`kubewire vm build`: the Debian packages (as root), then the kernels, with a line per step."""
    kernels = [named(options.kernel)] if options.kernel != AUTO else [named("uml"), named("uml-stock")]
    steps = debian.Steps()
    os.umask(0o022)  # what root builds is for everybody
    failed = ""
    for kernel in kernels:
        try:
            _install(kernel, steps)
            steps.run(f"kernel {kernel.name}", lambda progress, kernel=kernel: _build(kernel, progress))  # type: ignore[misc]
        except debian.SetUpFailed as error:
            failed = str(error)
            if not build.refusal(kernel):
                raise LabError(failed) from None
    if failed and not any(build.find(kernel) for kernel in kernels):
        raise LabError(failed)
    return show()


def kernel_for_tests() -> None:
    """Where no kernel is built, Debian's stock one, if this user may install it and it runs here.

    A kernel that does not run is no failure: a line says why, and so does each test that is
    skipped for want of it. Raises LabError when Debian's packages cannot be installed.
    """
    stock, steps = named("uml-stock"), debian.Steps()
    for kernel in filter(build.to_be_asked, KERNELS):
        _try(kernel, steps)
    try:
        found = any(build.find(named(name)) for name in TESTED)
    except Untrusted as error:
        raise LabError(str(error)) from None
    if found:
        return
    if build.refusal(stock):
        _without(build.missing(stock))
    elif debian.missing(packages(stock.name)) and os.geteuid() != 0:
        _without(f"the kernel {stock.name} is not built, and only root can install it")
    else:
        try:
            _install(stock, steps)
        except debian.SetUpFailed as error:
            raise LabError(str(error)) from None
        _try(stock, steps)


def _without(why: str) -> None:
    print(f"  - virtual machines: {why}; tests in it are skipped", file=sys.stderr, flush=True)


def _try(kernel: Kernel, steps: debian.Steps) -> None:
    """Build it, or say in one line why not."""
    try:
        steps.run(f"kernel {kernel.name}", lambda progress: _build(kernel, progress))
    except debian.SetUpFailed as error:
        _without(build.missing(kernel) if build.refusal(kernel) else str(error).splitlines()[0])


def _install(kernel: Kernel, steps: debian.Steps) -> None:
    wanted = debian.missing(packages(kernel.name))
    if wanted and os.geteuid() != 0:
        raise debian.SetUpFailed(
            f"these Debian packages are missing: {' '.join(wanted)}; run kubewire vm build as root"
        )
    if wanted and shutil.which("apt-get") is None:
        raise debian.SetUpFailed(f"this is not a Debian; install what provides {' '.join(wanted)}")
    if wanted:
        steps.run(f"Debian packages: {' '.join(wanted)}", lambda progress: debian.install_packages(wanted, progress))


def _build(kernel: Kernel, progress: Callable[[str], None]) -> None:
    try:
        build.build(kernel, progress)
    except (BuildFailed, Untrusted) as error:
        raise debian.SetUpFailed(str(error)) from None


def show() -> int:
    """`kubewire vm status`: the kernels with size and checksum, the machines that run."""
    print(f"cache {cache.directory()}  {cache.size_of(cache.directory()) / 1e6:.0f} MB")
    for kernel in KERNELS:
        print(f"  {kernel.name:<10} {kernel.title}")
        try:
            built = build.find(kernel)
        except Untrusted as error:
            print(f"  {'':<10} not used: {error}")
            continue
        if built is None:
            why = build.refusal(kernel)
            print(
                f"  {'':<10} "
                + (
                    f"does not run on this machine: {why}"
                    if why
                    else f"not built: kubewire vm build --kernel {kernel.name}"
                )
            )
            continue
        have = sum(built.features.values())
        print(f"  {'':<10} {built.release}, {have} of {len(built.features)} features, {built.path}")
        changed = "" if _intact(built) else "  CHANGED since it was built: kubewire vm build"
        print(f"  {'':<10} {built.size / 1e6:.1f} MB, sha256 {built.sha256}{changed}")
    for folder in running():
        print(f"  running: {folder.name}")
    return 0


def _intact(built: cache.Built) -> bool:
    path = Path(built.path)
    return path.exists() and path.stat().st_size == built.size and cache.sha256(path) == built.sha256


def _chosen(wanted: str, needs: Needs) -> Kernel:
    try:
        return choose(wanted, needs)
    except NotBuilt as error:
        raise UsageError(str(error)) from None


def cpus(kernel: Kernel) -> int:
    return min(4, os.cpu_count() or 1) if kernel.name == "qemu" else 1


def _guarded(work: Callable[[], int]) -> int:
    try:
        return work()
    except (Ended, VMError, TimeoutError) as error:
        raise LabError(str(error)) from None
