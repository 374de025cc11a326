"""`kubewire doctor`: checks what this machine, its kernel and the kernels of virtual machines can
do for a lab.

A version number does not tell what a kernel was built with, so each feature is tried: on the
machine now, in a virtual machine when its kernel was built.
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
    """One line of the report.

    needed: no lab can run without it.
    without: what a lab lacks if it does not work and is not needed.
    cure: what the user can do if it does not work; "" if nothing.
    """

    name: str
    works: bool
    detail: str = ""
    needed: bool = False
    without: str = ""
    cure: str = ""


#: Where the list of Debian packages is: in a checkout, or where `pip install` puts it (setup.py).
_LISTINGS = (
    sources.FOLDER / "debian-packages.txt",
    Path(sysconfig.get_path("data"), "share/kubewire/debian-packages.txt"),
)


def findings() -> dict[str, list[Finding]]:
    """All findings by part, the most basic part first."""
    return {"machine": _machine(), "Debian packages": _tools(), KERNEL: _kernel()}


def _machine() -> list[Finding]:
    root = os.geteuid() == 0
    who = "root" if root else "ordinary user: labs run in a user namespace"
    found = [Finding("user", True, who)]
    if not root:
        lacking = "in one, containers cannot write the machine's files; no bpf, perhaps no tun"
        found.append(
            Finding(
                "user namespaces",
                features.in_child(lambda: ns.unshare(ns.CLONE_NEWUSER)),
                lacking,
                needed=True,
            )
        )
    flags = ns.CLONE_NEWNS | ns.CLONE_NEWPID | ns.CLONE_NEWNET
    flags |= ns.CLONE_NEWIPC | ns.CLONE_NEWUTS | ns.CLONE_NEWCGROUP
    found.append(
        Finding(
            "namespaces",
            features.in_child(lambda: features.isolate(flags)),
            "net mnt pid ipc uts cgroup",
            needed=True,
        )
    )
    found.append(
        Finding("overlayfs", "overlay" in Path("/proc/filesystems").read_text(), "", needed=True),
    )
    return found


#: Packages that a lab can do without -> what it lacks without them.
_WITHOUT_PACKAGE = {"kubernetes-client": "kubewire kubectl", "ipvsadm": "kubeProxy.mode: ipvs"}


def _tools() -> list[Finding]:
    listing = next(filter(Path.exists, _LISTINGS), None)
    if listing is None:
        return []
    found = []
    for package, witness in packages(listing.read_text()):
        is_path = witness.startswith("/")
        there = Path(witness).exists() if is_path else shutil.which(witness) is not None
        without = _WITHOUT_PACKAGE.get(package, "")
        found.append(
            Finding(package, there, witness, not without, without, f"apt install {package}"),
        )
    return found


def _kernel() -> list[Finding]:
    return [
        Finding(name, features.works(name), "", feature.needed, feature.without)
        for name, feature in features.FEATURES.items()
    ]


def vm_features() -> dict[str, dict[str, bool] | None]:
    """The features that each kernel of a virtual machine was found to have when it was built; None
    for a kernel that is not built here."""
    found: dict[str, dict[str, bool] | None] = {}
    for kernel in KERNELS:
        try:
            built = build.find(kernel)
        except Untrusted as error:
            print(f"kubewire: the kernel {kernel.name} is ignored: {error}", file=sys.stderr)
            built = None
        found[kernel.name] = dict(built.features) if built else None
    return found


def vm_refusals() -> dict[str, str]:
    """Kernels that do not run on this machine -> the reason in one line. Boots none of them."""
    found = {kernel.name: build.refusal(kernel) for kernel in KERNELS}
    return {name: why for name, why in found.items() if why}


@functools.cache
def missing_feature(name: str) -> str:
    """Why this machine lacks a kernel feature that a scenario requires; "" if it has it. Raises
    LookupError if no feature has this name."""
    if name == features.VIRTUAL_TIME:
        return "" if features.has_virtual_time() else "time is real here"
    return "" if features.works(name) else f"this kernel has no {name}{_perhaps()}"


def _perhaps() -> str:
    return "" if os.geteuid() == 0 else ", or not without root"


def show(*, as_json: bool = False) -> int:
    """Print the report. Returns 1 if something is missing that every lab needs."""
    found, others, refused = findings(), vm_features(), vm_refusals()
    if as_json:
        plain = [
            {"part": part} | asdict(finding) for part, of_it in found.items() for finding in of_it
        ]
        known = {
            "kernel": platform.release(),
            "findings": plain,
            "vm": others,
            "vm_refused": refused,
        }
        print(json.dumps(known, indent=1))
    else:
        print("\n".join(report(found, others, refused)))
    everything = [finding for of_part in found.values() for finding in of_part]
    return 1 if any(finding.needed and not finding.works for finding in everything) else 0


def report(
    found: Mapping[str, list[Finding]],
    others: Mapping[str, Mapping[str, bool] | None],
    refused: Mapping[str, str],
) -> Iterator[str]:
    """The report for people: the machine, then the features of its kernel, with those of the
    virtual machines in further columns."""
    yield f"kernel {platform.release()}, {os.cpu_count()} cores"
    for part, of_it in found.items():
        beside = part == KERNEL
        heading = f"  {part:<29} {'here':<5}" + _row(others, {name: name for name in others})
        yield heading if beside else part
        for finding in of_it:
            yield _line(finding, _row(others, _marks(finding.name, others)) if beside else "")
    for name, why in refused.items():
        yield f"  ✗ {name} does not run on this machine: {why}"
    if unbuilt := [name for name, one in others.items() if one is None and name not in refused]:
        yield f"  ? not built: kubewire vm build --kernel {'|'.join(unbuilt)}"


def _marks(feature: str, others: Mapping[str, Mapping[str, bool] | None]) -> dict[str, str]:
    marks = {}
    for name, features_of_it in others.items():
        if features_of_it is None:
            marks[name] = "?"
        else:
            marks[name] = "✓" if features_of_it.get(feature) else "-"
    return marks


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
