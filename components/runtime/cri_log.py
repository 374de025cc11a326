"""Writes container logs in the CRI format, and rotates them.

A line is `2026-11-23T05:00:00.000000000Z stdout F text`. A longer line than 16 KiB is split into
parts with the tag P, the last with F (kubernetes/kubernetes pkg/kubelet/kuberuntime/logs;
containerd's max_container_log_line_size). Logs are rotated as the kubelet does by
containerLogMaxSize and containerLogMaxFiles: a full file is renamed to NAME.YYYYMMDD-HHMMSS.
"""

# pathlib is not used, because importing it would cost memory in every container.
# ruff: noqa: PTH208
from __future__ import annotations

import os
import time

MAX_LINE = 16 * 1024


def timestamp(nanoseconds: int) -> str:
    """Nanoseconds since the epoch -> RFC 3339 in UTC with nine digits."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


class LineSplitter:
    """Turns the bytes of a stream into CRI lines."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._partial = b""

    def feed(self, data: bytes, now: int) -> bytes:
        """The CRI lines that data completes. now: in nanoseconds."""
        *lines, rest = (self._partial + data).split(b"\n")
        prefix = f"{timestamp(now)} {self._stream} ".encode()
        out = [part for line in lines for part in self._format(prefix, line)]
        while len(rest) > MAX_LINE:
            out.append(prefix + b"P " + rest[:MAX_LINE] + b"\n")
            rest = rest[MAX_LINE:]
        self._partial = rest
        return b"".join(out)

    def end(self, now: int) -> bytes:
        """The CRI line of an unfinished last line. As containerd's, it has the tag of a part, so
        that its reader does not end it either."""
        if not self._partial:
            return b""
        line = f"{timestamp(now)} {self._stream} P ".encode() + self._partial + b"\n"
        self._partial = b""
        return line

    @staticmethod
    def _format(prefix: bytes, line: bytes) -> list[bytes]:
        parts = [line[start : start + MAX_LINE] for start in range(0, len(line), MAX_LINE)] or [b""]
        tags = [b"P "] * (len(parts) - 1) + [b"F "]
        return [prefix + tag + part + b"\n" for tag, part in zip(tags, parts, strict=True)]


class LogFile:
    """A log file in an open directory, which may be in any mount namespace."""

    def __init__(self, directory: int, name: str, max_bytes: int, max_files: int) -> None:
        """Takes over the descriptor `directory`. Raises OSError if the file cannot be opened."""
        self._directory = directory
        self._name = name
        self._max_bytes = max_bytes
        self._max_files = max_files
        try:
            self._open()
        except OSError:
            os.close(directory)
            raise

    def write(self, lines: bytes) -> None:
        """Appends whole lines, after a rotation if necessary. Raises OSError (disk full)."""
        if self._size and self._size + len(lines) > self._max_bytes:
            self._rotate()
        while lines:
            written = os.write(self._file, lines)
            self._size += written
            lines = lines[written:]

    def close(self) -> None:
        os.close(self._file)
        os.close(self._directory)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._name, flags, 0o640, dir_fd=self._directory)
        self._size = os.fstat(self._file).st_size

    def _rotate(self) -> None:
        os.close(self._file)
        taken = set(os.listdir(self._directory))
        base = f"{self._name}.{time.strftime('%Y%m%d-%H%M%S')}"
        name = base
        serial = 0
        while name in taken:
            serial += 1
            name = f"{base}.{serial:04d}"
        os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        rotated = sorted(n for n in {*taken, name} if n.startswith(f"{self._name}."))
        for old in rotated[: max(len(rotated) - (self._max_files - 1), 0)]:
            os.unlink(old, dir_fd=self._directory)
        self._open()
