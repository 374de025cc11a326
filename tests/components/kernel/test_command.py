"""kernel.command: programs run without threads, and nothing is left of them."""

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from kubewire.components.kernel.command import CommandError, run, run_blocking


def test_a_program_gets_stdin_and_environment_and_gives_both_outputs():
    script = 'cat; echo "$ONE" >&2; exit 3'
    done = asyncio.run(run(["sh", "-c", script], stdin=b"x" * 300_000, env={"ONE": "1", "PATH": os.environ["PATH"]}))
    assert (done.returncode, len(done.stdout), done.stderr) == (3, 300_000, b"1\n")


def test_many_programs_at_once_need_no_thread():
    async def many():
        done = await asyncio.gather(*(run(["sh", "-c", f"exit {n}"]) for n in range(20)))
        return [one.returncode for one in done], threading.active_count()

    assert asyncio.run(many()) == (list(range(20)), threading.active_count())


def test_a_program_that_does_not_end_is_killed_with_its_children():
    async def slow():
        with pytest.raises(TimeoutError):
            await run(["sh", "-c", "sleep 987654 & wait"], timeout=0.2)

    asyncio.run(slow())
    deadline = time.monotonic() + 5
    while _running("987654") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _running("987654")


def _running(argument):
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", argument.encode()]:
                return True
        except OSError:
            continue
    return False


def test_cancelling_the_caller_kills_the_program():
    async def cancelled():
        task = asyncio.create_task(run(["sleep", "60"]))
        await asyncio.sleep(0)  # it has started when its task has first run
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = time.monotonic()
    asyncio.run(cancelled())
    assert time.monotonic() - started < 5


def test_check_says_what_failed():
    with pytest.raises(CommandError, match=r"^sh -c echo broken >&2; exit 2: exit status 2: broken$"):
        asyncio.run(run(["sh", "-c", "echo broken >&2; exit 2"], check=True))


def test_a_missing_program_is_an_os_error():
    with pytest.raises(FileNotFoundError):
        asyncio.run(run(["no-such-program-anywhere"]))


@pytest.mark.parametrize(
    "said",
    [
        "iptables-restore: line 4 failed",
        "Error occurred at line: 4",
        "/dev/stdin:4:5-9: Error: syntax",
        "Command failed -:4",
    ],
)
def test_the_lines_around_the_one_that_a_tool_names_are_shown(said):
    stdin = "".join(f"rule {number}\n" for number in range(1, 10)).encode()
    with pytest.raises(CommandError) as raised:
        asyncio.run(run(["sh", "-c", f"cat >/dev/null; echo '{said}' >&2; exit 1"], stdin=stdin, check=True))
    assert raised.value.said == said
    assert str(raised.value).splitlines()[1:] == [f"{number:6} rule {number}" for number in range(1, 7)]


def test_a_missing_tool_is_named_with_its_debian_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError, match="install the Debian package iptables: 'ip6tables-restore'"):
        asyncio.run(run(["ip6tables-restore"]))


def test_without_an_event_loop_it_is_the_same():
    assert run_blocking(["sh", "-c", "cat; exit 3"], stdin=b"in").stdout == b"in"
    with pytest.raises(CommandError, match=r"exit status 2: broken$"):
        run_blocking(["sh", "-c", "echo broken >&2; exit 2"], check=True)
    with pytest.raises(TimeoutError, match=r"sleep 60: no end in 0.1 s"):
        run_blocking(["sleep", "60"], timeout=0.1)
    with pytest.raises(FileNotFoundError):
        run_blocking(["no-such-program-anywhere"])
