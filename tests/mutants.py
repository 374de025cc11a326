"""Mutants of the catalogue: each case is run with something wrong that it must notice.

    sudo PYTHONPATH=src .venv/bin/python -m tests.mutants                       # all
    sudo PYTHONPATH=src .venv/bin/python -m tests.mutants services hairpin      # of a subject, of a scenario
    sudo PYTHONPATH=src .venv/bin/python -m tests.mutants services -- -j 2      # options of kubewire run

What is wrong stands in tests/mutations.yaml. A mutant has a lab to itself, and runs in the first cell of its scenario's
matrix. A mutant is found when its case fails where the mutation says (`red`). Exit code 0: all were found, 1: a mutant
passed, failed elsewhere or could not run. The table is in results/mutants/table.md.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

from kubewire.scenarios.engine.file.document import Document
from kubewire.scenarios.engine.file.model import Case
from kubewire.scenarios.engine.loader import SUFFIX, load_all, merge

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "scenarios/catalogue"
MUTATIONS = Path(__file__).with_name("mutations.yaml")


@dataclass(frozen=True)
class Mutation:
    """What is wrong with a case ("SCENARIO" or "SCENARIO[VARIANT]").

    change: the fault in a sentence. red: a regular expression that is found in what the failure says, which is the step,
    the expectation and the message. steps: inserted before the step that has the name before ("": the first that
    expects something). document: merged into the scenario's document (RFC 7386).
    """

    case: str
    change: str
    red: str
    before: str = ""
    steps: Sequence[Mapping[str, Any]] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


class WrongMutation(Exception):
    """A mutation that does not fit its scenario; the text says why."""


def read(file: Path = MUTATIONS) -> tuple[dict[str, Mutation], list[str]]:
    """The mutations by case, and the cases that have none yet."""
    data = Document.parse(file.read_text(), str(file)).data
    return {case: Mutation(case, **given) for case, given in data["mutations"].items()}, data["none yet"]


def name_of(case: Case) -> str:
    """The case without its matrix's cell."""
    return f"{case.scenario.name}[{case.variant.name}]" if case.variant.name else case.scenario.name


def cases() -> dict[str, Case]:
    """The catalogue's cases by name, each in the first cell of its matrix."""
    found: dict[str, Case] = {}
    for case in load_all([CATALOGUE]):
        found.setdefault(name_of(case), case)
    return found


def mutate(case: Case, mutation: Mutation, name: str) -> dict[str, Any]:
    """The document of a scenario of this name with the one case and its fault. Raises WrongMutation."""
    file = case.scenario.file
    data = merge(copy.deepcopy(Document.parse(file.read_text(), str(file)).data), mutation.document)
    own = data.get("variants", {}).get(case.variant.name, {})
    steps = [*own.get("before", []), *(own.get("steps") or data.get("steps", [])), *own.get("after", [])]
    place = _place(steps, mutation)
    steps[place:place] = mutation.steps
    mutant = {**data, "name": name, "isolated": True, "steps": steps}
    if own or case.variant.name:
        rest = {key: value for key, value in own.items() if key not in ("before", "steps", "after")}
        mutant["variants"] = {case.variant.name: rest}
    cell = dict(case.cell)
    matrix = data.get("matrix", {})
    axes = {axis: [value for value in values if str(value) == cell[axis]] for axis, values in matrix.items()}
    mutant.pop("exclude", None)
    return {**mutant, "matrix": axes} if axes else mutant


def _place(steps: Sequence[Mapping[str, Any]], mutation: Mutation) -> int:
    for number, step in enumerate(steps):
        if step.get("name") == mutation.before if mutation.before else "expect" in step:
            return number
    raise WrongMutation(f"{mutation.case}: no step {mutation.before or 'that expects something'!r}")


@dataclass(frozen=True)
class Outcome:
    """found: the case failed where it should. said: what the run said, in one line."""

    mutation: Mutation
    found: bool
    seconds: float
    said: str


def judge(mutation: Mutation, result: Mapping[str, Any] | None) -> Outcome:
    """result: of the case in results.json; None when it did not run."""
    if result is None:
        return Outcome(mutation, False, 0.0, "did not run")
    said = " ".join(_failure(result).split())
    found = result["status"] == "failed" and bool(re.search(mutation.red, said))
    said = shorten(f"{result['status']}: {said}" if said else result["status"], 300, placeholder=" ...")
    return Outcome(mutation, found, result["seconds"], said)


def _failure(result: Mapping[str, Any]) -> str:
    for step in result["steps"]:
        if step["status"] in ("failed", "error"):
            wrong = [one for one in step["expectations"] if one["status"] in ("failed", "error")]
            said = [f"{one['name']}: {one['message']}" for one in wrong[:1]]
            return ": ".join(part for part in [step["name"], *(said or [step["message"]])] if part)
    return str(result["reason"])


def table(outcomes: Sequence[Outcome]) -> str:
    """As Markdown, those that were not found first."""
    lines = ["| case | what is wrong | found | s | what the run said |", "|---|---|---|--:|---|"]
    for one in sorted(outcomes, key=lambda one: one.found):
        said = one.said.replace("|", "\\|")
        found = "yes" if one.found else "**no**"
        lines.append(f"| {one.mutation.case} | {one.mutation.change} | {found} | {one.seconds:.0f} | {said} |")
    return "\n".join(lines) + "\n"


def run(chosen: Sequence[tuple[Case, Mutation]], results: Path, arguments: Sequence[str]) -> list[Outcome]:
    """Raises WrongMutation, KeyboardInterrupt."""
    shutil.rmtree(results, ignore_errors=True)
    folder = results / "scenarios"  # not a folder of root alone: a virtual machine reads as nobody
    folder.mkdir(parents=True)
    names = {f"mutant-{number}": pair for number, pair in enumerate(chosen, 1)}
    for name, (case, mutation) in names.items():
        # JSON is YAML, and says of every text that it is one.
        (folder / f"{name}{SUFFIX}").write_text(json.dumps(mutate(case, mutation, name), indent=1))
    command = [str(ROOT / "kubewire"), "run", str(folder), "--quiet", "--no-color", "--results", str(results)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL)
    if done.returncode == 130:
        raise KeyboardInterrupt
    report = json.loads((results / "results.json").read_text())
    by_name = {one["scenario"]: one for one in report["cases"]}
    return [judge(mutation, by_name.get(name)) for name, (_, mutation) in names.items()]


def choose(words: Sequence[str]) -> list[tuple[Case, Mutation]]:
    """Those of these subjects, scenarios and cases; all when there are no words."""
    mutations, _ = read()
    known = cases()
    pairs = [(known[name], mutation) for name, mutation in mutations.items()]
    return [
        (case, mutation)
        for case, mutation in pairs
        if not words or {case.scenario.topic, case.scenario.name, mutation.case} & set(words)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="SUBJECT|SCENARIO|CASE", help="which; default: all")
    parser.add_argument("--results", type=Path, default=ROOT / "results/mutants", metavar="DIR")
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:split])
    chosen = choose(options.words)
    if not chosen:
        parser.error(f"no mutation fits {' '.join(options.words)}")
    outcomes = run(chosen, options.results.absolute(), given[split + 1 :])
    text = f"{sum(one.found for one in outcomes)} of {len(outcomes)} mutants were found\n\n{table(outcomes)}"
    (options.results / "table.md").write_text(text)
    print(text)
    return 0 if all(one.found for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
