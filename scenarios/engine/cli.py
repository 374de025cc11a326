"""The arguments of `kubewire run`, and what it calls."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.scenarios.engine.events.options import Elsewhere, MissingFeature, RunOptions, everything_there

if TYPE_CHECKING:
    from kubewire.scenarios.engine.file.model import Case
    from kubewire.scenarios.engine.handle import LabFactory

CATALOGUE = Path(__file__).parent.parent / "catalogue"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Scenario files and how to run them. Imports nothing heavy: every `kubewire` command calls this."""
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help="scenario files, folders of them, or names in the catalogue (default: the whole catalogue)",
    )
    parser.add_argument(
        "-k", dest="keyword", default="", metavar="WORDS", help='only matching ones: "dns and not broken"'
    )
    parser.add_argument("-j", "--jobs", type=_jobs, default=1, metavar="N", help="labs at the same time (default 1)")
    parser.add_argument("-l", "--list", action="store_true", help="say what would run, and run nothing")
    parser.add_argument("--keep", action="store_true", help="stay inside a failed lab and say how to look around")
    parser.add_argument("--resume", action="store_true", help="run only what has not passed the last time")
    parser.add_argument("-x", "--stop-at-first", action="store_true", help="stop at the first failure")
    parser.add_argument("-v", "--verbose", action="store_true", help="show all evidence, not only its summary")
    parser.add_argument("-q", "--quiet", action="store_true", help="one line per scenario")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where report.html, junit.xml, results.json and the captures go (default: results)",
    )
    parser.add_argument("--only", action="append", default=[], metavar="ID", help="only the case with this id (again)")
    parser.add_argument("--events", type=Path, metavar="FILE", help="also write what happens, as lines of JSON")
    parser.add_argument("--no-color", action="store_true", help="plain text even on a terminal")


def _jobs(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} labs at the same time run nothing; 1 or more do")
    return number


def options_of(
    arguments: argparse.Namespace,
    missing: MissingFeature = everything_there,
    elsewhere: Elsewhere | None = None,
    *,
    delegate: bool = False,
) -> RunOptions:
    """What the parsed arguments ask for."""
    return RunOptions(
        results=arguments.results,
        keyword=arguments.keyword,
        jobs=arguments.jobs,
        keep=arguments.keep,
        resume=arguments.resume,
        list_only=arguments.list,
        stop_at_first=arguments.stop_at_first,
        verbose=arguments.verbose,
        quiet=arguments.quiet,
        color=False if arguments.no_color else None,
        missing=missing,
        elsewhere=elsewhere,
        delegate=delegate,
        only=tuple(arguments.only),
        events=arguments.events,
    )


def files_of(given: Sequence[str]) -> list[Path]:
    """Paths as they are; a bare name is looked for in the catalogue; nothing means all of it."""
    return [_short(path) for path in (map(_catalogued, given) if given else [CATALOGUE])]


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """What `kubewire run` with these arguments would run. Raises SpecError, KeywordError, OSError."""
    from kubewire.scenarios.engine.run.runner import chosen

    return chosen(files_of(arguments.scenarios), options_of(arguments))


def _short(path: Path) -> Path:
    """Below the working directory: relative, for that is what people read in reports."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _catalogued(text: str) -> Path:
    path = Path(text)
    if path.exists():
        return path
    # By name, not by pattern: text may be anything.
    named = (file for file in sorted(CATALOGUE.rglob("*.scenario.yaml")) if file.name == f"{text}.scenario.yaml")
    subject = CATALOGUE / text
    return next(named, subject if subject.is_dir() else path)


def run(files: Sequence[Path | str], lab_factory: LabFactory, options: RunOptions) -> int:
    """Run scenarios. 0: all passed (or were skipped), 1: some did not, 2: a file is wrong, 130: interrupted."""
    from kubewire.scenarios.engine.run.runner import run as run_cases

    return run_cases([Path(file) for file in files], lab_factory, options)
