"""Files that a reader sees as they were or as they will be, never half of one."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: str | Path, content: bytes, mode: int = 0o644) -> None:
    """Write beside the file and rename(2). Folders are made. Raises OSError; then the file is as it was."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A leading dot and no known suffix: who reads the directory (the kubelet, /etc/cni/net.d) passes it over.
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        # Made with its mode: a kubeconfig is at no moment readable for others.
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
