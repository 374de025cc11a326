"""`kubewire vm`: runs a command line of kubewire, or any program, in a virtual machine
(vm/README.md)."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import termios
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
#: The kernels that the tests boot. QEMU takes minutes; benchmarks/ measures it.
TESTED = ("uml", "uml-stock")
#: The features that a lab with all defaults needs.
_LAB = (*(name for name, feature in kernel_features.FEATURES.items() if feature.needed), "vxlan")


@dataclass(frozen=True)
class Needs:
    """What a command line needs from a kernel: features, and whether idle time is skipped."""

    features: tuple[str, ...] = ()
    virtual_time: bool = False


def needs_of(cases: Iterable[Case]) -> Needs:
    """What scenarios need. Idle time is skipped if each of them requires it."""
    chosen = list(cases)
    features = dict.fromkeys(name for case in chosen for name in case.requires)
    virtual = kernel_features.VIRTUAL_TIME
    skipping = [virtual in case.requires for case in chosen]
    return Needs(
        (*_LAB, *(name for name in features if name != virtual)),
        bool(skipping) and all(skipping),
    )


def choose(wanted: str, needs: Needs) -> Kernel:
    """The wanted kernel or, with "auto", the lightest one that is built and has what is needed.
    Raises UsageError, NotBuilt."""
    if wanted != AUTO:
        kernel = named(wanted)
        if needs.virtual_time and not kernel.virtual_time:
            raise UsageError(
                f"the kernel {kernel.name} has no virtual time, but the command needs it; "
                "leave --kernel out, or use --kernel uml",
            )
        build.need(kernel)
        return kernel
    for kernel in KERNELS:
        if (built := build.find(kernel)) and not lacking(kernel, built, needs):
            return kernel
    known = {kernel: build.find(kernel) for kernel in KERNELS}
    refused = {kernel: build.refusal(kernel) for kernel, one in known.items() if one is None}
    if unbuilt := [kernel.name for kernel, why in refused.items() if not why]:
        raise NotBuilt(
            "no kernel that is built for virtual machines has all the features this needs; "
            f"build another one first: kubewire vm build --kernel {unbuilt[0]}"
        )
    why_not = []
    for kernel, built_kernel in known.items():
        if built_kernel:
            why_not.append(f"{kernel.name} lacks {', '.join(lacking(kernel, built_kernel, needs))}")
    why_not += [f"{kernel.name} does not run on this machine" for kernel in refused]
    raise UsageError(
        f"no kernel for virtual machines has all the features this needs: {'; '.join(why_not)}",
    )


def lacking(kernel: Kernel, built: cache.Built, needs: Needs) -> list[str]:
    """The needed features that this kernel lacks."""
    missing = [name for name in needs.features if not built.features.get(name)]
    if needs.virtual_time and not kernel.virtual_time:
        missing.append(kernel_features.VIRTUAL_TIME)
    return missing


def run(
    options: argparse.Namespace,
    parse: Callable[[Sequence[str]], argparse.Namespace | None],
) -> int:
    """Run `kubewire vm run -- COMMAND ...`; returns the exit code of the command. parse: returns
    the options of a command line of kubewire, None for any other program."""
    command = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    if not command:
        raise UsageError("give the command to run, e.g. kubewire vm run -- run SCENARIO")
    inner = parse(command)
    needs, outputs = _of_kubewire(inner)
    virtual = options.virtual_time or needs.virtual_time
    kernel = _chosen(options.kernel, Needs(needs.features, virtual))
    boot = Boot(options.memory, cpus(kernel), virtual)
    argv = [sys.executable, "-m", "kubewire.lab", *command] if inner else command
    job = Job(
        argv,
        str(Path.cwd()),
        build.environment(),
        [path.resolve() for path in (*outputs, *options.output)],
    )
    return _guarded(lambda: _run_job(kernel, boot, job, visible(command), options.timeout))


def _run_job(
    kernel: Kernel,
    boot: Boot,
    job: Job,
    seen: Sequence[Path],
    timeout: float | None,
) -> int:
    with Machine(kernel, build.need(kernel), boot, visible=seen, jobs=[job]) as machine:
        (pending,) = machine.pending
        return machine.wait(pending, timeout=timeout, out=_to(1), err=_to(2))


def _to(descriptor: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]

    return write


def _of_kubewire(inner: argparse.Namespace | None) -> tuple[Needs, list[Path]]:
    """What a command line of kubewire needs, and the folders to which it writes reports."""
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
    """The folders that a command line needs: the code, the working folder, and those of files that
    its arguments name."""
    # os.path.exists, because a script of `sh -c` may be longer than a path, which Path refuses.
    named_ = [Path(word).resolve() for word in command if "/" in word and os.path.exists(word)]  # noqa: PTH110
    return [
        *build.code_folders(),
        Path.cwd(),
        *(path if path.is_dir() else path.parent for path in named_),
    ]


def shell(options: argparse.Namespace) -> int:
    """Run `kubewire vm shell`: a shell on this terminal."""
    if not sys.stdin.isatty():
        raise UsageError(
            "kubewire vm shell needs a terminal; without one, use kubewire vm run -- COMMAND",
        )
    kernel = _chosen(options.kernel, Needs(virtual_time=options.virtual_time))
    boot = Boot(options.memory, cpus(kernel), options.virtual_time, terminal=True)
    folder = str(Path.cwd())

    def work() -> int:
        with Machine(
            kernel,
            build.need(kernel),
            boot,
            visible=visible(),
            shell=["bash", "-l"],
            workdir=folder,
        ) as machine:
            return machine.attend()

    with _terminal_as_before():
        return _guarded(work)


@contextlib.contextmanager
def _terminal_as_before() -> Iterator[None]:
    """Restore the settings of the terminal: a machine sets raw mode, and may end without resetting
    it."""
    before = termios.tcgetattr(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def make(options: argparse.Namespace) -> int:
    """Run `kubewire vm build`: install the Debian packages (as root), then build the kernels.
    Prints a line per step."""
    names = [options.kernel] if options.kernel != AUTO else ["uml", "uml-stock"]
    kernels = [named(name) for name in names]
    steps = debian.Steps()
    os.umask(0o022)  # every user may run the kernels that root builds
    failed = ""
    for kernel in kernels:
        try:
            _install(kernel, steps)
            steps.run(f"kernel {kernel.name}", partial(_build, kernel))
        except debian.SetUpFailed as error:
            failed = str(error)
            if not build.refusal(kernel):
                raise LabError(failed) from None
    if failed and not any(build.find(kernel) for kernel in kernels):
        raise LabError(failed)
    return show()


def kernel_for_tests() -> None:
    """If no kernel is built, install Debian's stock one, provided that this user may and that it
    runs here.

    A kernel that does not run is not an error: a line says why, and so does each test that is
    skipped. Raises LabError if Debian's packages cannot be installed.
    """
    stock = named("uml-stock")
    steps = debian.Steps()
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
    print(f"  - virtual machines: {why}; their tests are skipped", file=sys.stderr, flush=True)


def _try(kernel: Kernel, steps: debian.Steps) -> None:
    """Build a kernel, or print one line with the reason why it cannot be built."""
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
        raise debian.SetUpFailed(
            "this machine has no apt-get (it is not a Debian); install what these Debian packages "
            f"contain: {' '.join(wanted)}"
        )
    if wanted:
        steps.run(
            f"Debian packages: {' '.join(wanted)}",
            lambda progress: debian.install_packages(wanted, progress),
        )


def _build(kernel: Kernel, progress: Callable[[str], None]) -> None:
    try:
        build.build(kernel, progress)
    except (BuildFailed, Untrusted) as error:
        raise debian.SetUpFailed(str(error)) from None


def show() -> int:
    """Run `kubewire vm status`: print the kernels with size and checksum, and the machines that
    run."""
    print(f"cache {cache.directory()}  {cache.size_of(cache.directory()) / 1e6:.0f} MB")
    for kernel in KERNELS:
        print(f"  {kernel.name:<10} {kernel.title}")
        try:
            built = build.find(kernel)
        except Untrusted as error:
            print(f"  {'':<10} ignored: {error}")
            continue
        if built is None:
            if why := build.refusal(kernel):
                print(f"  {'':<10} does not run on this machine: {why}")
            else:
                print(
                    f"  {'':<10} not built; to build it: kubewire vm build --kernel {kernel.name}",
                )
            continue
        have = sum(built.features.values())
        print(f"  {'':<10} {built.release}, {have} of {len(built.features)} features, {built.path}")
        changed = "" if _intact(built) else "  CHANGED since it was built; run kubewire vm build"
        print(f"  {'':<10} {built.size / 1e6:.1f} MB, sha256 {built.sha256}{changed}")
    for folder in running():
        print(f"  running: {folder.name}")
    return 0


def _intact(built: cache.Built) -> bool:
    path = Path(built.path)
    if not path.exists() or path.stat().st_size != built.size:
        return False
    return cache.sha256(path) == built.sha256


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
