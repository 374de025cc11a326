"""Replaces files atomically: a reader sees the old or the new content, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: str | Path, content: bytes, mode: int = 0o644) -> None:
    """Writes a file beside the target and renames it (rename(2)). Creates folders. If it raises
    OSError, the target is unchanged."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A leading dot and no known suffix: programs that read the directory (the kubelet,
    # /etc/cni/net.d) skip it.
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        # Created with its mode, so a kubeconfig is never readable for other users.
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode),
            "wb",
        ) as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
