"""Programs that the tests start by fork (`main=`)."""

# ruff: noqa: PTH208
from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path


def show(argv: list[str]) -> int:
    """Print what a program can see of how it was started; exit with the number in argv."""
    told = {
        "argv": argv,
        "sys.argv": sys.argv,
        "env": dict(os.environ),
        "cwd": str(Path.cwd()),
        "pid": os.getpid(),
        "ids": [os.getuid(), os.getgid(), os.getgroups()],
        "hostname": socket.gethostname(),
        "fds": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
        "comm": Path("/proc/self/comm").read_text().strip(),
        "cmdline": Path("/proc/self/cmdline").read_text().rstrip("\0"),
        "sigterm": str(signal.getsignal(signal.SIGTERM)),
        "masked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    }
    print(json.dumps(told))
    return int(argv[0]) if argv else 0


def fail(argv: list[str]) -> int:
    raise RuntimeError("as the test asked")


def leave(argv: list[str]) -> int:
    sys.exit("words for stderr")


def sleep_until_term(argv: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    print("ready", flush=True)
    while True:
        signal.pause()


def accept_one(argv: list[str]) -> int:
    """Socket activation: answer one connection on descriptor N of argv."""
    with socket.socket(fileno=int(argv[0])) as listener:
        connection, _ = listener.accept()
        connection.sendall(b"hello from the process")
        connection.close()
    return 0


def print_modules(argv: list[str]) -> int:
    print(*sys.modules)
    return 0


def write_to_hung_up_peer(argv: list[str]) -> int:
    """0 when Python's usual exception came."""
    ours, theirs = socket.socketpair()
    theirs.close()
    try:
        ours.send(b"x")
    except BrokenPipeError:
        return 0
    return 1
