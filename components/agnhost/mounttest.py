"""agnhost mounttest: creates files, and prints what a volume is and contains (mounttest/mt.go)."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kubewire.components.base.golang import quote

from .flags import Flag, parse

FLAGS = (
    Flag("fs_type", "", "Path to print the fs type for"),
    Flag("file_mode", "", "Path to print the mode bits of"),
    Flag("file_perm", "", "Path to print the perms of"),
    Flag("file_owner", "", "Path to print the owning UID and GID of"),
    Flag("new_file_0644", "", "Path to write to and read from with perm 0644"),
    Flag("new_file_0666", "", "Path to write to and read from with perm 0666"),
    Flag("new_file_0660", "", "Path to write to and read from with perm 0660"),
    Flag("new_file_0777", "", "Path to write to and read from with perm 0777"),
    Flag("file_content", "", "Path to read the file content from"),
    Flag("file_content_in_loop", "", "Path to read the file content in loop from"),
    Flag("retry_time", 180, "Retry time during the loop"),
    Flag("break_on_expected_content", True, "Break out of loop on expected content"),
)
NEW_FILE = "mount-tester new file\n"
_PAUSE = 2.0
#: The letters of Go's os.FileMode that precede the permissions, in its order.
_KINDS = (
    (stat.S_ISDIR, "d"), (stat.S_ISLNK, "L"), (stat.S_ISBLK, "D"), (stat.S_ISFIFO, "p"),
    (stat.S_ISSOCK, "S"), (stat.S_ISCHR, "Dc"),
)  # fmt: skip
_BITS = ((stat.S_ISUID, "u"), (stat.S_ISGID, "g"), (stat.S_ISVTX, "t"))


def main(argv: list[str]) -> int:
    """Runs what the flags ask for, always in this order; returns 1 if a step failed."""
    values, _ = parse("mounttest", FLAGS, argv)
    os.umask(0)
    steps: list[tuple[str, Callable[[str], None]]] = [
        ("fs_type", _fs_type),
        *(
            (f"new_file_{mode:04o}", lambda path, mode=mode: _new_file(path, mode))
            for mode in (0o644, 0o666, 0o660, 0o777)
        ),
        ("file_mode", lambda path: print(f"mode of file {quote(path)}: {go_mode(_mode(path))}")),
        ("file_perm", lambda path: print(f"perms of file {quote(path)}: {_permissions(path)}")),
        ("file_owner", _owner),
        ("file_content", lambda path: print(_content(path))),
    ]
    failed = False
    for name, step in steps:
        path = str(values[name])
        try:
            if path:
                step(path)
        except OSError as error:
            failed = True
            print(f"error of {name}({quote(path)}): {(error.strerror or str(error)).lower()}")
    if looped := str(values["file_content_in_loop"]):
        seconds = int(values["retry_time"])
        wanted = bool(values["break_on_expected_content"])
        failed = not _content_in_loop(looped, seconds, wanted) or failed
    return int(failed)


def go_mode(mode: int) -> str:
    """A file's mode as Go's os.FileMode prints it, for example dgtrwxrwxrwx."""
    kind = "".join(letter for is_kind, letter in _KINDS if is_kind(mode))
    kind += "".join(letter for bit, letter in _BITS if mode & bit)
    return (kind or "-") + stat.filemode(stat.S_IFREG | stat.S_IMODE(mode) & 0o777)[1:]


def _mode(path: str) -> int:
    return Path(path).stat().st_mode


def _permissions(path: str) -> str:
    return go_mode(stat.S_IFREG | _mode(path) & 0o777)


def _fs_type(path: str) -> None:
    """Prints tmpfs by its name, and other types by their number, in decimal."""
    done = subprocess.run(["stat", "-f", "-c", "%t", path], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())
    kind = int(done.stdout.strip(), 16)
    print(f"mount type of {quote(path)}: {'tmpfs' if kind == 0x01021994 else kind}")


def _new_file(path: str, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(NEW_FILE)
    print(_content(path))


def _owner(path: str) -> None:
    found = Path(path).stat()
    print(f"owner UID of {quote(path)}: {found.st_uid}")
    print(f"owner GID of {quote(path)}: {found.st_gid}")


def _content(path: str) -> str:
    """The line about a file's content."""
    return f"content of file {quote(path)}: {Path(path).read_text(errors='replace')}"


def _content_in_loop(path: str, seconds: int, until_expected: bool) -> bool:
    """Prints the content again and again. Returns whether it could be read at last."""
    deadline = time.monotonic() + seconds
    read = True
    while time.monotonic() < deadline:
        try:
            said = _content(path)
            print(said, flush=True)
            read = True
            if until_expected and said.endswith(f": {NEW_FILE}"):
                return True
            if until_expected:
                print(f"Unexpected content. Expected: {NEW_FILE}. Retrying", end="", flush=True)
        except OSError as error:
            read = False
            print(f"Error reading file {path}: {error.strerror}, retrying", flush=True)
        time.sleep(_PAUSE)
    return read
