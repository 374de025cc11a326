"""The release check: the whole catalogue many times, half of the times under CPU load, without a flake.

    sudo python3 tests/release_check.py                        # 50 times; takes many hours, and goes on where it stopped
    sudo python3 tests/release_check.py --times 4 services     # what is run can be chosen, as for kubewire run
    sudo python3 tests/release_check.py -- -j 2 --vm auto      # and how

Each run's reports are in results/release-check/run-NN. A table of all cases with their runs, failures and slowest
run is printed and written to results/release-check/table.md. Exit code 0: nothing failed in any run, 1: something did,
2: the folder has runs of something else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
#: Busy processes of a run under load: as many again as a small machine has cores.
_BUSY = 2
#: A busy process ends with the one that started it, also when that is killed.
_SPIN = "import os\nwhile os.getppid() == {parent}:\n    for _ in range(1_000_000): pass"


@dataclass(frozen=True)
class Outcome:
    """Of one case in one run. status: passed, skipped or failed; seconds: of the case without its lab."""

    case: str
    status: str
    seconds: float
    why: str = ""


@dataclass(frozen=True)
class Run:
    """One run of the catalogue that has ended by itself. left: what it left in the state directory."""

    number: int
    loaded: bool
    seconds: float
    exit_code: int
    left: list[str]
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass
class Row:
    """One case over all runs."""

    case: str
    runs: int = 0
    failed: list[int] = field(default_factory=list)
    slowest: float = 0.0
    slowest_loaded: float = 0.0
    why: str = ""


class WrongFolder(Exception):
    """The results folder holds runs of another commit or selection; the text says what to do."""


def outcomes(junit: Path) -> list[Outcome]:
    """The cases of a junit.xml."""
    return [_outcome(case) for case in ElementTree.parse(junit).getroot().iter("testcase")]


def _outcome(case: ElementTree.Element) -> Outcome:
    name, seconds = case.attrib["name"], float(case.attrib["time"])
    for tag in ("failure", "error"):
        if (found := case.find(tag)) is not None:
            return Outcome(name, "failed", seconds, found.attrib.get("message", ""))
    return Outcome(name, "passed" if case.find("skipped") is None else "skipped", seconds)


def table(runs: Sequence[Run]) -> list[Row]:
    """Cases with the most failures first, then the slowest. A case that is skipped everywhere has 0 runs."""
    rows: dict[str, Row] = {}
    for run in runs:
        for outcome in run.outcomes:
            row = rows.setdefault(outcome.case, Row(outcome.case))
            if outcome.status == "skipped":
                continue
            row.runs += 1
            if run.loaded:
                row.slowest_loaded = max(row.slowest_loaded, outcome.seconds)
            else:
                row.slowest = max(row.slowest, outcome.seconds)
            if outcome.status == "failed":
                row.failed.append(run.number)
                row.why = row.why or outcome.why
    return sorted(rows.values(), key=lambda row: (-len(row.failed), -row.slowest_loaded, -row.slowest, row.case))


def render(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = ["| case | runs | failures | slowest, s | slowest under load, s |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        failures = f"{len(row.failed)} (runs {', '.join(map(str, row.failed))})" if row.failed else "0"
        lines.append(f"| {row.case} | {row.runs} | {failures} | {row.slowest:.1f} | {row.slowest_loaded:.1f} |")
    return "\n".join(lines) + "\n"


def verdict(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    """What was run, and what is wrong."""
    loaded = sum(run.loaded for run in runs)
    executed = sum(row.runs for row in rows)
    failures = sum(len(row.failed) for row in rows)
    never = sum(not row.runs for row in rows)
    lines = [
        f"{len(runs)} runs, {loaded} of them under load: {executed} cases run, {failures} failures, "
        f"{never} cases skipped everywhere"
    ]
    lines += [f"run {run.number} left {', '.join(run.left)}" for run in runs if run.left]
    lines += [f"run {run.number} ended with exit code {run.exit_code}" for run in runs if run.exit_code not in (0, 1)]
    for row in rows:
        if row.failed:
            kind = "always fails" if len(row.failed) == row.runs else "flaky"
            lines.append(f"{kind}: {row.case}: {row.why}")
    return lines


def is_clean(runs: Sequence[Run]) -> bool:
    return all(run.exit_code == 0 and not run.left for run in runs)


@contextlib.contextmanager
def busy(processes: int) -> Iterator[list[int]]:
    """That many processes that compute; they are ended with the block."""
    command = [sys.executable, "-c", _SPIN.format(parent=os.getpid())]
    started = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


class Check:
    """Runs of `kubewire run` into one folder, resumable. command: the program and its first argument."""

    def __init__(self, folder: Path, command: Sequence[str], arguments: Sequence[str]) -> None:
        self.folder, self._command, self._arguments = folder, list(command), list(arguments)

    def run(self, times: int) -> list[Run]:
        """Those that are there already, and the missing ones. Raises WrongFolder, KeyboardInterrupt."""
        self._claim()
        runs = []
        for number in range(1, times + 1):
            run = self._known(number)
            if run is None:
                run = self._one(number, loaded=number % 2 == 0)
            runs.append(run)
            self._write(runs)
        return runs

    def _claim(self) -> None:
        """One folder is for one commit and one selection: figures of several would say nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        what = {"commit": commit(), "arguments": self._arguments}
        file = self.folder / "check.json"
        if file.exists() and (before := json.loads(file.read_text())) != what:
            raise WrongFolder(f"{self.folder} has runs of {before}, not of {what}; remove it, or choose --results")
        file.write_text(json.dumps(what))

    def _folder(self, number: int) -> Path:
        return self.folder / f"run-{number:02}"

    def _known(self, number: int) -> Run | None:
        """run.json is the last thing that is written of a run."""
        try:
            raw: dict[str, Any] = json.loads((self._folder(number) / "run.json").read_text())
        except FileNotFoundError:
            return None
        return Run(**raw | {"outcomes": [Outcome(**one) for one in raw["outcomes"]]})

    def _one(self, number: int, *, loaded: bool) -> Run:
        results = self._folder(number)
        shutil.rmtree(results, ignore_errors=True)  # of a run that was cut short
        results.mkdir()
        state = Path(tempfile.mkdtemp(prefix="kw-"))
        began = time.monotonic()
        with busy(_BUSY if loaded else 0), (results / "output.txt").open("wb") as output:
            done = subprocess.run(
                [*self._command, "--no-color", "--quiet", "--results", str(results), *self._arguments],
                cwd=ROOT,
                env=os.environ | {"KUBEWIRE_STATE_DIR": str(state)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        left = sorted(path.name for path in state.iterdir())
        if not left:
            state.rmdir()
        if done.returncode == 130:
            raise KeyboardInterrupt
        junit = results / "junit.xml"
        cases = outcomes(junit) if junit.exists() else []
        run = Run(number, loaded, round(time.monotonic() - began, 1), done.returncode, left, cases)
        temporary = results / ".run.json"
        temporary.write_text(json.dumps(asdict(run), indent=1))
        temporary.replace(results / "run.json")
        print(summary(run), flush=True)
        return run

    def _write(self, runs: Sequence[Run]) -> None:
        rows = table(runs)
        (self.folder / "table.md").write_text("\n\n".join([*verdict(runs, rows), render(rows)]))


def summary(run: Run) -> str:
    failed = [outcome.case for outcome in run.outcomes if outcome.status == "failed"]
    where = "under load" if run.loaded else "idle"
    what = f"failed: {', '.join(failed)}" if failed else f"exit code {run.exit_code}"
    return f"run {run.number} ({where}): {len(run.outcomes)} cases in {run.seconds:.0f} s, {what}"


def commit() -> str:
    """Of the checkout; with -dirty when files differ from it."""
    command = ["git", "-c", f"safe.directory={ROOT}", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="runs in all (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / "results/release-check", metavar="DIR")
    parser.add_argument(
        "arguments", nargs="*", metavar="...", help="for kubewire run: scenarios; after --, options too"
    )
    options = parser.parse_args(argv)
    check = Check(options.results.absolute(), [str(ROOT / "kubewire"), "run"], options.arguments)
    try:
        runs = check.run(options.times)
    except WrongFolder as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with the next run", file=sys.stderr)
        return 130
    rows = table(runs)
    print("\n".join(verdict(runs, rows)), render(rows), sep="\n\n")
    return 0 if is_clean(runs) else 1


if __name__ == "__main__":
    sys.exit(main())
