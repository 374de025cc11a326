"""The release check finds flakes, goes on where it stopped, and ends its load."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import release_check
from tests.release_check import Check, Outcome, Run, WrongFolder, busy, is_clean, render, table, verdict

#: Stands in for `kubewire run`: notes each run, and fails "b" in its third one.
_FAKE = """
import pathlib, sys
results = pathlib.Path(sys.argv[sys.argv.index("--results") + 1])
notes = results.parent / "notes"
with notes.open("a") as file:
    file.write("x")
third = len(notes.read_text()) == 3
failure = "<failure message='no answer'/>" if third else ""
(results / "junit.xml").write_text(f\"\"\"<testsuites><testsuite name="t">
<testcase classname="t.a" name="a" time="1.5"/>
<testcase classname="t.b" name="b" time="2.5">{failure}</testcase>
<testcase classname="t.c" name="c" time="0"><skipped message="no module"/></testcase>
</testsuite></testsuites>\"\"\")
sys.exit(1 if third else CODE)
"""


def check_of(folder: Path, *arguments: str, code: int = 0) -> Check:
    return Check(folder, [sys.executable, "-c", _FAKE.replace("CODE", str(code))], arguments)


def test_a_case_that_fails_once_is_named_with_its_run(tmp_path: Path) -> None:
    runs = check_of(tmp_path).run(4)
    rows = {row.case: row for row in table(runs)}
    assert [run.loaded for run in runs] == [False, True, False, True]
    assert (rows["b"].runs, rows["b"].failed, rows["a"].failed, rows["c"].runs) == (4, [3], [], 0)
    assert "flaky: b: no answer" in verdict(runs, list(rows.values()))
    assert "| b | 4 | 1 (runs 3) | 2.5 | 2.5 |" in render(table(runs))
    assert not is_clean(runs)
    assert is_clean(runs[:2])
    assert "flaky: b" in (tmp_path / "table.md").read_text()


def test_a_check_goes_on_where_it_stopped_and_runs_again_what_was_cut_short(tmp_path: Path) -> None:
    check_of(tmp_path).run(2)
    (tmp_path / "run-02/run.json").unlink()
    (tmp_path / "run-02/half-written").touch()
    runs = check_of(tmp_path).run(2)
    assert (tmp_path / "notes").read_text() == "xxx"
    assert [run.number for run in runs] == [1, 2]
    assert not (tmp_path / "run-02/half-written").exists()


def test_an_interrupted_run_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        check_of(tmp_path, code=130).run(1)
    assert not (tmp_path / "run-01/run.json").exists()


def test_runs_of_another_selection_or_commit_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_of(tmp_path, "dns").run(1)
    with pytest.raises(WrongFolder, match=r"not of .*services"):
        check_of(tmp_path, "services").run(1)
    monkeypatch.setattr(release_check, "commit", lambda: "another")
    with pytest.raises(WrongFolder, match=r"not of .*another"):
        check_of(tmp_path, "dns").run(1)


@pytest.mark.parametrize(
    "run",
    [
        Run(1, False, 1.0, 2, [], []),
        Run(1, False, 1.0, 0, ["run-1-1"], [Outcome("a", "passed", 1.0)]),
    ],
    ids=["a file is wrong", "a state directory is left"],
)
def test_what_is_no_cases_failure_fails_the_check_too(run: Run) -> None:
    assert not is_clean([run])
    assert any(line.startswith("run 1 ") for line in verdict([run], table([run])))


def test_a_case_that_never_passes_is_not_called_flaky() -> None:
    runs = [Run(number, False, 1.0, 1, [], [Outcome("a", "failed", 1.0, "why")]) for number in (1, 2)]
    assert "always fails: a: why" in verdict(runs, table(runs))


def test_the_load_ends_with_the_block(tmp_path: Path) -> None:
    with busy(2) as pids:
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_the_load_ends_with_a_check_that_is_killed() -> None:
    code = (
        "import time\nfrom tests.release_check import busy\nwith busy(1) as p:\n print(*p, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=release_check.ROOT, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        pid = int(killed.stdout.readline())
        killed.kill()
    deadline = time.monotonic() + 30
    while running(pid):
        assert time.monotonic() < deadline, f"busy process {pid} goes on"
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
