"""Builds kernels into the cache, boots each once and asks it what it has."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from kubewire.components.base import apt, sources
from kubewire.components.kernel import features as kernel_features
from kubewire.vm import cache
from kubewire.vm.errors import BuildFailed, DoesNotRun, NotBuilt, Panicked, Untrusted, VMError
from kubewire.vm.kernels.base import Boot, Kernel, Progress
from kubewire.vm.machine import Machine
from kubewire.vm.share import Job

_PROBE_TIMEOUT = 300.0


def folder_of(kernel: Kernel) -> Path:
    return cache.directory() / kernel.name


def code_folders() -> list[Path]:
    """What Python needs of the host to run this code: the checkout (or site-packages) and the virtual environment."""
    return [sources.VISIBLE, Path(sys.prefix)]


def environment() -> dict[str, str]:
    """For Python inside: this code, and no writing beside it."""
    return {"PYTHONPATH": str(sources.IMPORTED_FROM), "PYTHONDONTWRITEBYTECODE": "1"}


def find(kernel: Kernel) -> cache.Built | None:
    """The kernel if it is in a cache and up to date, was asked for all features, and runs here.

    Raises Untrusted for a cache that others can write.
    """
    for directory in cache.directories():
        folder = directory / kernel.name
        built = cache.Built.load(folder)
        if built:
            _own(apt.require_own, folder)
        if built and (built.recipe, built.probes) == (kernel.recipe(), probes()) and os.access(built.path, os.R_OK):
            return None if refusal(kernel) else built
    return None


def refusal(kernel: Kernel) -> str:
    """Why it does not run on this machine, in one line; "" when it does or was not tried yet."""
    verdict = _verdict(kernel)
    if verdict is None or not verdict.why or verdict.recipe != kernel.recipe():
        return ""
    return verdict.why if verdict.holds() else ""


def _verdict(kernel: Kernel) -> cache.Verdict | None:
    """What is known of it on this machine: what this user found out, else what root did."""
    known = (cache.Verdict.load(directory / kernel.name) for directory in cache.directories())
    return next(filter(None, known), None)


def to_be_asked(kernel: Kernel) -> bool:
    """Whether this user has it built as it should be, and it is only to be booted once more.

    So it is when the list of features is another one since, or when it was booted on another machine.
    """
    built = cache.Built.load(folder_of(kernel))
    if built is None or built.recipe != kernel.recipe() or not os.access(built.path, os.R_OK):
        return False
    verdict = _verdict(kernel)
    if verdict is None or not verdict.holds():
        return True
    return not verdict.why and find(kernel) is None


def missing(kernel: Kernel) -> str:
    """Why there is none to be used, in one line that says what helps; "" when there is one."""
    if find(kernel):
        return ""
    if why := refusal(kernel):
        return f"the kernel {kernel.name} does not run on this machine: {why}"
    return f"the kernel {kernel.name} is not built yet: kubewire vm build --kernel {kernel.name}"


def need(kernel: Kernel) -> cache.Built:
    """Raises NotBuilt with what helps."""
    built = find(kernel)
    if built is None:
        raise NotBuilt(missing(kernel))
    return built


def build(kernel: Kernel, progress: Progress) -> cache.Built:
    """Make it when it is not there, and find out what it has. The same call again goes on.

    Raises BuildFailed; DoesNotRun when it panics on this machine. Whether it does is kept for
    refusal(); that it was not up in time is not, for that may be the machine's load.
    """
    folder = folder_of(kernel)
    if not cache.Built.load(folder) and (others := find(kernel)):
        progress(f"root has built it: {others.path}")
        return others
    _own(apt.make_own, folder)
    with _alone(folder, progress):
        began = time.monotonic()
        made = kernel.make(folder, progress)
        built = cache.Built(
            release=made.release,
            path=str(made.path),
            size=made.path.stat().st_size,
            sha256=cache.sha256(made.path),
            recipe=kernel.recipe(),
            probes=probes(),
            seconds=round(time.monotonic() - began, 1),
        )
        before = cache.Built.load(folder)
        verdict = cache.Verdict(built.path, built.sha256, built.recipe)
        known = cache.Verdict.load(folder) == verdict
        if known and before and _same(before, built):
            return before
        progress("booting it to see what it has")
        try:
            found = probe(kernel, built)
        except DoesNotRun as error:
            replace(verdict, why=error.why).save(folder)
            raise
        verdict.save(folder)
        built = replace(built, features=found)
        built.save(folder)
        return built


def _own(check: Callable[[Path], None], folder: Path) -> None:
    try:
        check(folder)
    except apt.Untrusted as error:
        raise Untrusted(str(error)) from error


def _same(one: cache.Built, other: cache.Built) -> bool:
    return (one.sha256, one.recipe, one.probes) == (other.sha256, other.recipe, other.probes)


def probes() -> str:
    """Changes when the list of features does, not with the place of the code: checkouts share a cache."""
    features = kernel_features.FEATURES.items()
    return cache.digest(
        *(f"{name} {feature.command}".replace(str(sources.FOLDER), "") for name, feature in features),
    )


def probe(kernel: Kernel, built: cache.Built) -> dict[str, bool]:
    """Boot it and try every feature inside. Raises BuildFailed; DoesNotRun when it panics."""
    job = Job([sys.executable, "-m", "kubewire.components.kernel.features"], env=environment())
    said: list[bytes] = []
    errors: list[bytes] = []
    try:
        with Machine(
            kernel,
            built,
            Boot(memory=1024),
            visible=code_folders(),
            jobs=[job],
        ) as machine:
            (pending,) = machine.pending
            up = _up(machine, kernel.boot_seconds)
            code = machine.wait(
                pending,
                timeout=_PROBE_TIMEOUT,
                out=said.append,
                err=errors.append,
                look=up,
            )
    except Panicked as error:
        raise DoesNotRun(
            f"{kernel.name} does not run on this machine: {error}",
            error.why,
        ) from error
    except (VMError, TimeoutError) as error:
        raise BuildFailed(f"{kernel.name} was built but does not run: {error}") from error
    if code != 0:
        raise BuildFailed(
            f"{kernel.name} runs, but not the probes: {b''.join(errors).decode(errors='replace')}",
        )
    features: dict[str, bool] = json.loads(b"".join(said))["features"]
    return features


def _up(machine: Machine, within: float) -> Callable[[], None]:
    """Called, it raises TimeoutError when the machine is not up within so many seconds from now."""
    deadline = time.monotonic() + within

    def look() -> None:
        if time.monotonic() > deadline and not machine.share.up():
            last = "".join(f"\n  | {line}" for line in machine.console()[-15:])
            raise TimeoutError(f"the virtual machine was not up in {within:g} s{last}")

    return look


@contextlib.contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """One build of a kernel at a time: flock(2) on its folder; whoever comes second waits."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another command builds it; waiting")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
