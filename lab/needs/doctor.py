"""`kubewire doctor`: what this machine, its kernel and the kernels of virtual machines can do for a lab.

All is found out by trying: on the machine now, in each virtual machine when its kernel was built.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from kubewire.components.base import sources
from kubewire.components.kernel import features as features
from kubewire.components.kernel import namespaces as ns
from kubewire.lab.setup.machine import packages
from kubewire.vm import build
from kubewire.vm.errors import Untrusted
from kubewire.vm.kernels import KERNELS

KERNEL = "kernel"


@dataclass(frozen=True)
class Finding:
    """One line of the report. needed: a lab cannot run without it; otherwise without says what is missing then.

    cure: what to do where it does not work, if there is something.
    """

    name: str
    works: bool
    detail: str = ""
    needed: bool = False
    without: str = ""
    cure: str = ""


#: The Debian packages, in a checkout and where `pip install` puts them (setup.py).
_LISTINGS = (
    sources.FOLDER / "debian-packages.txt",
    Path(sysconfig.get_path("data"), "share/kubewire/debian-packages.txt"),
)


def findings() -> dict[str, list[Finding]]:
    """Everything doctor looks at, by part, most basic first."""
    return {"machine": _machine(), "Debian packages": _tools(), KERNEL: _kernel()}


def _machine() -> list[Finding]:
    root = os.geteuid() == 0
    yes = "root" if root else "ordinary user: labs run in a user namespace"
    found = [Finding("user", True, yes)]
    if not root:
        lacking = "in one, files of the machine owned by root are read-only in containers; no bpf, perhaps no tun"
        found.append(
            Finding("user namespaces", features.in_child(lambda: ns.unshare(ns.CLONE_NEWUSER)), lacking, needed=True)
        )
    flags = ns.CLONE_NEWNS | ns.CLONE_NEWPID | ns.CLONE_NEWNET | ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | ns.CLONE_NEWCGROUP
    found.append(
        Finding(
            "namespaces", features.in_child(lambda: features.isolate(flags)), "net mnt pid ipc uts cgroup", needed=True
        )
    )
    found.append(Finding("overlayfs", "overlay" in Path("/proc/filesystems").read_text(), "", needed=True))
    return found


#: Packages that a lab can do without, and what it lacks then.
_WITHOUT_PACKAGE = {"kubernetes-client": "kubewire kubectl", "ipvsadm": "kubeProxy.mode: ipvs"}


def _tools() -> list[Finding]:
    listing = next(filter(Path.exists, _LISTINGS), None)
    if listing is None:
        return []
    found = []
    for package, witness in packages(listing.read_text()):
        there = Path(witness).exists() if witness.startswith("/") else shutil.which(witness) is not None
        without = _WITHOUT_PACKAGE.get(package, "")
        found.append(Finding(package, there, witness, not without, without, f"apt install {package}"))
    return found


def _kernel() -> list[Finding]:
    return [
        Finding(name, features.works(name), "", feature.needed, feature.without)
        for name, feature in features.FEATURES.items()
    ]


def vm_features() -> dict[str, dict[str, bool] | None]:
    """What each kernel of a virtual machine was found to have when it was built; None: it is not built here."""
    found: dict[str, dict[str, bool] | None] = {}
    for kernel in KERNELS:
        try:
            built = build.find(kernel)
        except Untrusted as error:
            print(f"kubewire: the kernel {kernel.name} is not used: {error}", file=sys.stderr)
            built = None
        found[kernel.name] = dict(built.features) if built else None
    return found


def vm_refusals() -> dict[str, str]:
    """Of the kernels that do not run on this machine: why, in one line. None is booted for it."""
    found = {kernel.name: build.refusal(kernel) for kernel in KERNELS}
    return {name: why for name, why in found.items() if why}


@functools.cache
def missing_feature(name: str) -> str:
    """Why a kernel feature that a scenario requires is not there; "" when it is. Raises LookupError for no feature."""
    if name == features.VIRTUAL_TIME:
        return "" if features.has_virtual_time() else "time is real here"
    return "" if features.works(name) else f"this kernel has no {name}{_perhaps()}"


def _perhaps() -> str:
    return "" if os.geteuid() == 0 else ", or not without root"


def show(*, as_json: bool = False) -> int:
    """Print the report; 1 when something a lab cannot do without is missing."""
    found, others, refused = findings(), vm_features(), vm_refusals()
    if as_json:
        plain = [{"part": part} | asdict(finding) for part, of_it in found.items() for finding in of_it]
        known = {"kernel": platform.release(), "findings": plain, "vm": others, "vm_refused": refused}
        print(json.dumps(known, indent=1))
    else:
        print("\n".join(report(found, others, refused)))
    return 1 if any(one.needed and not one.works for of_it in found.values() for one in of_it) else 0


def report(
    found: Mapping[str, list[Finding]], others: Mapping[str, Mapping[str, bool] | None], refused: Mapping[str, str]
) -> Iterator[str]:
    """For people: the machine, then its kernel's features with those of the virtual machines beside them."""
    yield f"kernel {platform.release()}, {os.cpu_count()} cores"
    for part, of_it in found.items():
        beside = part == KERNEL
        yield f"  {part:<29} {'here':<5}" + _row(others, {name: name for name in others}) if beside else part
        for finding in of_it:
            yield _line(finding, _row(others, _marks(finding.name, others)) if beside else "")
    for name, why in refused.items():
        yield f"  ✗ {name} does not run on this machine: {why}"
    if unbuilt := [name for name, one in others.items() if one is None and name not in refused]:
        yield f"  ? not built: kubewire vm build --kernel {'|'.join(unbuilt)}"


def _marks(feature: str, others: Mapping[str, Mapping[str, bool] | None]) -> dict[str, str]:
    return {name: "?" if one is None else "✓" if one.get(feature) else "-" for name, one in others.items()}


def _row(columns: Iterable[str], cells: Mapping[str, str]) -> str:
    return "".join(f" {cells[name]:<{max(5, len(name))}}" for name in columns)


def _line(finding: Finding, beside: str) -> str:
    mark = "✓" if finding.works else "✗" if finding.needed else "-"
    text = finding.detail
    if not finding.works and finding.cure:
        why = "needed" if finding.needed else f"without it: no {finding.without}"
        text = f"missing: {finding.cure} ({why})"
    elif not finding.works:
        text = f"needed {finding.without}"
        if not finding.needed:
            text = f"not in this kernel{_perhaps()}; without it: {finding.without}"
    if beside:
        return f"    {finding.name:<27} {mark:<5}{beside} {text}".rstrip()
    return f"  {mark} {finding.name:<27} {text}".rstrip()
