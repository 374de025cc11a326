"""Options and fixtures of the whole suite."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests/golden"

# Programs that tests start find kubewire where pytest does (pyproject.toml, pythonpath), also without the launcher.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/* from what the code says now")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of virtual machines come first, because they take a minute or more each.

    pytest-xdist (--dist worksteal) gives each worker a contiguous part of the list. So one worker runs the machines while
    the others do the rest, and none is left alone with them at the end. Two machines side by side would be slower than
    one after the other on two cores.
    """
    items.sort(key=lambda item: item.get_closest_marker("vm") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What ran on which kernel, and what did not run: nothing is left out silently."""
    terminalreporter.section("where it ran")
    for line in where_it_ran(terminalreporter.stats):
        terminalreporter.line(line)


def where_it_ran(stats: dict[str, list[pytest.TestReport]]) -> Iterator[str]:
    """stats: pytest's, by outcome."""
    ran = Counter(
        dict(report.user_properties).get("ran_on", f"this machine's kernel ({os.uname().release})")
        for outcome in ("passed", "failed")
        for report in stats.get(outcome, [])
    )
    yield from (f"{count} tests on {place}" for place, count in sorted(ran.items()))
    yield from sorted({value for reports in stats.values() for report in reports for value in _told(report)})
    skipped = Counter(_reason(report) for report in stats.get("skipped", []))
    yield from (f"{count} skipped: {reason}" for reason, count in sorted(skipped.items()))


def _told(report: object) -> list[str]:
    """What a test wants to be told in the end."""
    return [str(value) for key, value in getattr(report, "user_properties", ()) if key == "told"]


def _reason(report: pytest.TestReport) -> str:
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "no reason"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden("kube_proxy/x.txt", text): equal to the file; with --update-golden the file is written."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest --update-golden and read what it wrote"
        assert text == path.read_text()

    return check
