"""Builds kernels into the cache, boots each once and tests which features it has."""

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
    """The host's folders that Python needs to run this code: the checkout (or site-packages) and
    the virtual environment."""
    return [sources.VISIBLE, Path(sys.prefix)]


def environment() -> dict[str, str]:
    """Variables for Python in the guest: the path of this code, and no bytecode files beside it."""
    return {"PYTHONPATH": str(sources.IMPORTED_FROM), "PYTHONDONTWRITEBYTECODE": "1"}


def find(kernel: Kernel) -> cache.Built | None:
    """The kernel if it is cached and up to date, was tested for all features, and runs here; else
    None.

    Raises Untrusted if other users can write to the cache.
    """
    for directory in cache.directories():
        folder = directory / kernel.name
        built = cache.Built.load(folder)
        if built:
            _own(apt.require_own, folder)
        if (
            built
            and (built.recipe, built.probes) == (kernel.recipe(), probes())
            and os.access(built.path, os.R_OK)
        ):
            return None if refusal(kernel) else built
    return None


def refusal(kernel: Kernel) -> str:
    """The reason why the kernel does not run on this machine, in one line; "" if it runs or was not
    tried yet."""
    verdict = _verdict(kernel)
    if verdict is None or not verdict.why or verdict.recipe != kernel.recipe():
        return ""
    return verdict.why if verdict.holds() else ""


def _verdict(kernel: Kernel) -> cache.Verdict | None:
    """The stored verdict for this machine: this user's own, else root's."""
    known = (cache.Verdict.load(directory / kernel.name) for directory in cache.directories())
    return next(filter(None, known), None)


def to_be_asked(kernel: Kernel) -> bool:
    """True if this user's build is up to date and only needs to be booted and tested again.

    That happens after the list of features has changed, or on another machine.
    """
    built = cache.Built.load(folder_of(kernel))
    if built is None or built.recipe != kernel.recipe() or not os.access(built.path, os.R_OK):
        return False
    verdict = _verdict(kernel)
    if verdict is None or not verdict.holds():
        return True
    return not verdict.why and find(kernel) is None


def missing(kernel: Kernel) -> str:
    """The reason why the kernel cannot be used, with the remedy, in one line; "" if it can."""
    if find(kernel):
        return ""
    if why := refusal(kernel):
        return f"the kernel {kernel.name} does not run on this machine: {why}"
    return f"the kernel {kernel.name} is not built yet: kubewire vm build --kernel {kernel.name}"


def need(kernel: Kernel) -> cache.Built:
    """Returns the kernel. Raises NotBuilt with the remedy."""
    built = find(kernel)
    if built is None:
        raise NotBuilt(missing(kernel))
    return built


def build(kernel: Kernel, progress: Progress) -> cache.Built:
    """Builds the kernel if necessary, and tests its features. An interrupted build is continued.

    Raises BuildFailed; DoesNotRun if the kernel panics on this machine. A panic is stored for
    refusal(); a time-out is not, because the machine's load may have caused it.
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
        progress("booting it to test its features")
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


def _same(before: cache.Built, after: cache.Built) -> bool:
    return (before.sha256, before.recipe, before.probes) == (
        after.sha256,
        after.recipe,
        after.probes,
    )


def probes() -> str:
    """A digest of the list of features, without the place of the code, so that checkouts can share
    a cache."""
    features = kernel_features.FEATURES.items()
    return cache.digest(
        *(
            f"{name} {feature.command}".replace(str(sources.FOLDER), "")
            for name, feature in features
        ),
    )


def probe(kernel: Kernel, built: cache.Built) -> dict[str, bool]:
    """Boots the kernel and tries every feature inside. Raises BuildFailed; DoesNotRun if it
    panics."""
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
    """Returns a function that raises TimeoutError if the machine is not up that many seconds from
    now."""
    deadline = time.monotonic() + within

    def look() -> None:
        if time.monotonic() > deadline and not machine.share.up():
            last = "".join(f"\n  | {line}" for line in machine.console()[-15:])
            raise TimeoutError(f"the virtual machine was not up in {within:g} s{last}")

    return look


@contextlib.contextmanager
def _alone(folder: Path, progress: Progress) -> Iterator[None]:
    """Holds flock(2) on the kernel's folder, so that only one build runs at a time; a second one
    waits."""
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
