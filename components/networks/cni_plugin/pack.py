"""Packs a plugin into one executable file that needs nothing of this project: a `#!` line before a
zip archive.

A node's /opt/cni/bin holds programs, and a pod's creation waits for each of them. Python executes a
zip archive that follows a `#!` line (zipapp), so one file carries the plugin, the contract and
their compiled code, and -I -S keep the interpreter from loading anything else.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from kubewire.components.base.sources import IMPORTED_FROM
from kubewire.components.kernel.files import replace

_SHARED = tuple(
    f"kubewire.components.networks.cni_plugin.{name}" for name in ("contract", "execution")
)
_MAIN = """\
import os, sys
from {} import main
code = main(sys.argv)
sys.stdout.flush()
os._exit(code)
"""


def pack(module: str, others: Iterable[str] = ()) -> bytes:
    """module: the dotted name of the module with main(argv). others: modules it imports besides the
    contract and its execution."""
    system = Path("/usr/bin/python3")
    interpreter = system if system.exists() else Path(sys.executable).resolve()
    archive = io.BytesIO()
    packages: set[str] = set()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted({module, *_SHARED, *others}):
            path = f"{name.replace('.', '/')}.py"
            source = (IMPORTED_FROM / path).read_bytes()
            packed.writestr(path, source)
            packed.writestr(f"{path}c", _compiled(source, path))
            parents = name.split(".")[:-1]
            packages |= {"/".join(parents[: count + 1]) for count in range(len(parents))}
        for package in sorted(packages):
            packed.writestr(f"{package}/__init__.py", "")
        packed.writestr("__main__.py", _MAIN.format(module))
    return f"#!{interpreter} -IS\n".encode() + archive.getvalue()


def _compiled(source: bytes, path: str) -> bytes:
    """A .pyc file that the interpreter does not compare with its source (PEP 552, unchecked
    hash-based).

    A plugin runs for every pod, and compiling it takes longer than its work. An interpreter of
    another version ignores the file and compiles the source.
    """
    code = marshal.dumps(compile(source, path, "exec", dont_inherit=True))
    return (
        importlib.util.MAGIC_NUMBER
        + (1).to_bytes(4, "little")
        + importlib.util.source_hash(source)
        + code
    )


def install(content: bytes, names: Iterable[str], bin_dir: str) -> None:
    """Writes the program under each of its names. Raises OSError."""
    for name in names:
        replace(Path(bin_dir, name), content, 0o755)
