"""Setting a machine up: what is missing is found by witnesses, and what is listed is well-formed."""

import threading
from pathlib import Path

import pytest

from kubewire.lab.setup import machine

ROOT = Path(__file__).parent.parent.parent


def test_every_line_of_the_package_list_has_a_package_and_a_witness() -> None:
    listed = list(machine.packages((ROOT / "debian-packages.txt").read_text()))
    assert ("iproute2", "ip") in listed
    assert len({package for package, _ in listed}) == len(listed)


def test_a_package_is_missing_when_its_command_or_file_is(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    listing = f"# comment\nshell sh\nnowhere no-such-command\nfile {tmp_path}/there\ngone {tmp_path}/gone\n"
    assert machine.missing(listing) == ["nowhere", "gone"]


def test_a_failed_command_says_its_last_words_and_what_to_do() -> None:
    with pytest.raises(machine.SetUpFailed, match=r"(?s)exit code 3.*\| out of luck\nask somebody"):
        machine._run(["sh", "-c", "echo out of luck; exit 3"], lambda _: None, lambda _: "", "ask somebody")


def test_an_interrupted_command_is_told_to_end_and_waited_for(tmp_path: Path) -> None:
    """As apt and pip do on ctrl-C: they put things in order first."""
    script = f"trap 'echo put in order >{tmp_path}/end; exit 1' INT; echo started; while :; do sleep 0.01; done"

    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine._run(["sh", "-c", script], lambda _: None, interrupted, "")
    assert (tmp_path / "end").read_text() == "put in order\n"


def test_a_second_set_up_of_a_checkout_waits_for_the_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    inside = threading.Event()

    def second() -> None:
        with machine.alone(tmp_path):
            inside.set()

    waiting = threading.Thread(target=second)
    said = ""
    with machine.alone(tmp_path):
        waiting.start()
        while "another command is setting this machine up" not in said:
            said += capfd.readouterr().err
        assert not inside.is_set()
    waiting.join(10)
    assert inside.is_set()


def test_every_requirement_is_pinned() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert lines
    assert [line for line in lines if "==" not in line] == []
