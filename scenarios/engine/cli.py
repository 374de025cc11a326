"""The arguments of `kubewire run`, and the function that it calls."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kubewire.scenarios.engine.events.options import (
    Elsewhere,
    MissingFeature,
    RunOptions,
    everything_there,
)

if TYPE_CHECKING:
    from kubewire.scenarios.engine.file.model import Case
    from kubewire.scenarios.engine.handle import LabFactory

CATALOGUE = Path(__file__).parent.parent / "catalogue"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments. It must import nothing large, because every `kubewire` command calls
    it."""
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help="scenario files, folders of them, or names in the catalogue (default: all of it)",
    )
    parser.add_argument(
        "-k",
        dest="keyword",
        default="",
        metavar="WORDS",
        help='run only scenarios whose names, titles or tags match, e.g. "dns and not broken"',
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=_jobs,
        default=1,
        metavar="N",
        help="number of labs that run at the same time (default: 1)",
    )
    parser.add_argument(
        "-l",
        "--list",
        action="store_true",
        help="list the scenarios that would run, and run none",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the lab of a failed scenario running, and show how to inspect it",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="run only scenarios that have not passed yet, or have changed since",
    )
    parser.add_argument(
        "-x",
        "--stop-at-first",
        action="store_true",
        help="stop after the first failure",
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show all evidence, not only a summary",
    )
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="print one line per scenario",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="folder for report.html, junit.xml, results.json and captures (default: results)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="ID",
        help="run only the case with this id, as -l prints it; repeatable",
    )
    parser.add_argument(
        "--events",
        type=Path,
        metavar="FILE",
        help="also write the events of the run to this file, as lines of JSON",
    )
    parser.add_argument(
        "--no-color",
        action="store_true",
        help="print plain text, also on a terminal",
    )


def _jobs(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"the number of labs must be at least 1, not {number}")
    return number


def options_of(
    arguments: argparse.Namespace,
    missing: MissingFeature = everything_there,
    elsewhere: Elsewhere | None = None,
    *,
    delegate: bool = False,
) -> RunOptions:
    """The options that the parsed arguments select."""
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
    """The files or folders for arguments. Existing paths stay as they are, other names are looked
    up in the catalogue. Without arguments, the whole catalogue."""
    paths = [_catalogued(text) for text in given] if given else [CATALOGUE]
    return [_short(path) for path in paths]


def cases_of(arguments: argparse.Namespace) -> list[Case]:
    """The cases that `kubewire run` with these arguments would run. Raises SpecError, KeywordError,
    OSError."""
    from kubewire.scenarios.engine.run.runner import chosen

    return chosen(files_of(arguments.scenarios), options_of(arguments))


def _short(path: Path) -> Path:
    """Makes a path below the working directory relative, because reports show it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _catalogued(text: str) -> Path:
    path = Path(text)
    if path.exists():
        return path
    # text is compared and not used as a pattern, because it may contain any character.
    files = sorted(CATALOGUE.rglob("*.scenario.yaml"))
    named = (file for file in files if file.name == f"{text}.scenario.yaml")
    subject = CATALOGUE / text
    return next(named, subject if subject.is_dir() else path)


def run(files: Sequence[Path | str], lab_factory: LabFactory, options: RunOptions) -> int:
    """Runs scenarios. Returns 0 if all passed or were skipped, 1 if some did not, 2 if a file is
    wrong, 130 if interrupted."""
    from kubewire.scenarios.engine.run.runner import run as run_cases

    return run_cases([Path(file) for file in files], lab_factory, options)
