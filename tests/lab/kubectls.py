"""The kubectls that a lab must get along with: the machine's own, and Debian 12's (1.20)."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from kubewire.components.base import apt

CACHE = Path(__file__).parent.parent.parent / ".cache" / "kubectl-debian"


def version(program: str) -> tuple[int, int]:
    done = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["clientVersion"]
    return int(found["major"]), int(found["minor"].rstrip("+"))


@lru_cache
def installed() -> str:
    program = shutil.which("kubectl")
    assert program, "debian-packages.txt installs one"
    return program


@lru_cache
def debian() -> str | None:
    """Debian 12's kubectl: the installed one, or its package unpacked (not installed) in .cache."""
    if version(installed())[1] <= 20:
        return installed()
    program = CACHE / "usr/bin/kubectl"
    if not program.exists() and shutil.which("apt-get"):
        shutil.rmtree(CACHE, ignore_errors=True)
        unpacked = CACHE.with_name("kubectl-debian.new")
        shutil.rmtree(unpacked, ignore_errors=True)
        try:
            apt.unpack(["kubernetes-client"], unpacked)
        except apt.Refused:
            return None
        unpacked.replace(CACHE)
    return str(program) if program.exists() else None
