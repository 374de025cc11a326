"""Prints a run: each case step by step, with the observations as evidence.

On a terminal it uses colours and shows the running step; elsewhere it prints plain lines. If
several labs run at the same time, a case is printed when it has ended, so that the lines of cases
do not mix.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.events.results import (
    CaseFinished,
    CaseResult,
    CaseStarted,
    Event,
    Evidence,
    ExpectationResult,
    LabFailed,
    LabKept,
    LabReady,
    LabStarting,
    LabStopped,
    RunFinished,
    RunStarted,
    Status,
    StepFinished,
    StepResult,
    StepStarted,
)
from kubewire.scenarios.engine.file.duration import shown
from kubewire.scenarios.engine.render.html import REPORT_FILE
from kubewire.scenarios.engine.verbs.packets import lines as packet_lines

COLORS = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
MARKS: dict[Status, tuple[str, str]] = {
    "passed": ("✓", "green"),
    "failed": ("✗", "red"),
    "error": ("!", "red"),
    "skipped": ("-", "yellow"),
}
VARIANT_COLORS = {"broken": "red", "fixed": "green", "control": "blue"}
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
#: An expectation about more pairs prints a summary instead of a line for each pair.
PAIRS_SHOWN = 3
ANSI = re.compile(r"\033\[[0-9;]*[mK]")
CONTROL = re.compile(r"(?!\033\[[0-9;]*m)[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Style:
    """Adds colours to texts, if colors is set."""

    colors: bool

    def paint(self, text: str, *names: str) -> str:
        if not self.colors or not text:
            return text
        return f"\033[{';'.join(COLORS[name] for name in names)}m{text}\033[0m"

    def safe(self, line: str) -> str:
        """The line without control characters that a command may have printed. Our own colours
        stay."""
        return CONTROL.sub("?", line if self.colors else ANSI.sub("", line))

    def mark(self, status: Status) -> str:
        symbol, color = MARKS[status]
        return self.paint(symbol, color, "bold")


class Terminal:
    def __init__(self, options: RunOptions, stream: TextIO) -> None:
        self.options = options
        self.stream = stream
        tty = stream.isatty() and os.environ.get("TERM") != "dumb"
        colors = tty and "NO_COLOR" not in os.environ
        if options.color is not None:
            colors = options.color
        self.style = Style(colors)
        self.width = max(60, min(shutil.get_terminal_size((110, 24)).columns, 130))
        self.live = _Live(stream) if tty else None
        self.mixed = options.jobs > 1
        self.stories: dict[str, list[str]] = {}

    def handle(self, event: Event) -> None:
        if self.live:
            self.live.clear()
        match event:
            case CaseStarted(case=case) | StepStarted(case=case) | StepFinished(case=case):
                self._tell(case.id, self._case_event(event))
            case CaseFinished(result):
                self._tell(result.case.id, self._case_end(result))
                self._print(self.stories.pop(result.case.id, []))
            case _:
                self._print(self._run_event(event))

    def _tell(self, case: str, lines: Iterable[str]) -> None:
        if self.mixed:
            self.stories.setdefault(case, []).extend(lines)
        else:
            self._print(lines)

    def _print(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stream.write(self.style.safe(line) + "\n")
        self.stream.flush()

    def _show_live(self, text: str) -> None:
        if self.live and not self.mixed:
            self.live.show(text[: self.width - 10])

    def _run_event(self, event: Event) -> Iterator[str]:
        paint = self.style.paint
        match event:
            case RunStarted(cases, labs):
                scenarios = len({case.scenario.name for case in cases})
                counts = [
                    _plural(scenarios, "scenario"),
                    _plural(len(cases), "case"),
                    _plural(labs, "lab"),
                ]
                yield paint("kubewire", "bold", "cyan") + "  " + " · ".join(counts)
            case LabStarting(name, spec):
                yield ""
                self._show_live(f"starting lab {name}: {spec.label()}")
            case LabReady(name, spec, seconds):
                where = paint(f"{spec.label()}  up in {shown(seconds)}", "dim")
                yield f"{paint('●', 'green')} lab {paint(name, 'bold')}  {where}"
            case LabFailed(name, spec, message):
                yield f"{self.style.mark('error')} lab {paint(name, 'bold')}  {spec.label()}"
                yield from _indented(message, 2)
            case LabStopped(name, seconds):
                yield ""
                yield paint(f"○ lab {name} ended in {shown(seconds)}", "dim")
            case LabKept(name, commands):
                yield ""
                yield paint(f"The lab {name} keeps running. To inspect it:", "yellow", "bold")
                yield from (f"    {command}" for command in commands)
            case RunFinished():
                yield from self._summary(event)
            case _:
                return

    def _case_event(self, event: Event) -> Iterator[str]:
        match event:
            case CaseStarted(case, _, number, total):
                if not self.options.quiet:
                    yield from self._headline(event)
                self._show_live(f"[{number}/{total}] {case.id}: preparing")
            case StepStarted(case, step, number, total):
                doing = step.name or _doing(step.action)
                self._show_live(f"{case.id}: step {number} of {total}, {doing}")
            case StepFinished(_, result, number) if not self.options.quiet:
                yield from self._step(result, number)
            case _:
                return

    def _headline(self, event: CaseStarted) -> Iterator[str]:
        paint = self.style.paint
        case = event.case
        scenario = case.scenario
        variant = case.variant
        yield ""
        title = paint(scenario.title, "bold")
        if variant.name:
            color = VARIANT_COLORS.get(variant.name, "cyan")
            title += "  " + paint(f" {variant.name} ", color, "bold")
        used = _length(scenario.title) + len(case.id) + len(variant.name) + 14
        rule = "━" * max(2, self.width - used)
        yield f"{paint('━━', 'cyan')} {title} {paint(rule, 'cyan')} {paint(case.id, 'dim')}"
        for text in (
            variant.explain or variant.title,
            "" if variant.name else scenario.description,
        ):
            if text:
                yield from (paint(line, "dim") for line in self._wrapped(text.split("\n\n")[0], 3))

    def _wrapped(self, text: str, indent: int) -> list[str]:
        pad = " " * indent
        plain = " ".join(text.split())
        return textwrap.wrap(plain, self.width - indent, initial_indent=pad, subsequent_indent=pad)

    def _step(self, result: StepResult, number: int) -> Iterator[str]:
        paint = self.style.paint
        step = result.step
        if step.action == "note":
            yield ""
            yield from (paint(line, "cyan") for line in self._wrapped(result.output, 3))
            return
        if step.action == "prepare" and result.status == "passed":
            message = paint(_short(result.message, self.width - 20), "dim")
            yield f"   {paint('·', 'dim')} {message}{self._took(result)}"
            return
        heading = step.name or ("" if step.action == "expect" else _doing(step.action))
        if step.name or step.action == "expect":
            yield ""
        if heading:
            yield f"   {self.style.mark(result.status)} {paint(heading, 'bold')}{self._took(result)}"
        if step.explain:
            yield from (paint(line, "dim") for line in self._wrapped(step.explain, 5))
        if not result.expectations and result.message:
            color = ("red",) if result.status != "passed" else ("dim",)
            yield from (paint(line, *color) for line in self._wrapped(result.message, 5))
        if result.output and (self.options.verbose or result.status != "passed"):
            yield from (paint(f"       {line}", "dim") for line in result.output.splitlines()[:40])
        for one in result.expectations:
            yield from self._expectation(one)

    def _took(self, result: StepResult) -> str:
        if result.seconds < 0.1:
            return ""
        return self.style.paint(f"  {shown(result.seconds)}", "dim")

    def _expectation(self, result: ExpectationResult) -> Iterator[str]:
        paint = self.style.paint
        expectation = result.expectation
        title = paint(expectation.name, "bold") if expectation.name else ""
        if expectation.must_fail and result.status == "passed":
            title += paint(" (fails, as expected in this variant)", "yellow")
        pairs = [item for item in result.evidence if not item.blind]
        nested = bool(expectation.name) or len(pairs) > PAIRS_SHOWN
        if nested:
            heading = f"{title or expectation.verb}{self._pairs_summary(result)}"
            yield f"     {self.style.mark(result.status)} {heading}"
        if expectation.explain:
            yield from (paint(line, "dim") for line in self._wrapped(expectation.explain, 7))
        if result.status == "error":
            yield from (paint(line, "red") for line in self._wrapped(result.message, 7))
        interesting = [item for item in result.evidence if not item.holds] or list(result.evidence)
        if len(pairs) > PAIRS_SHOWN and result.status == "passed" and not self.options.verbose:
            interesting = interesting[:1]
        for item in interesting[: 10 if not self.options.verbose else None]:
            yield from self._evidence(item, result, nested)
        if len(interesting) > 10 and not self.options.verbose:
            more = f"       ... {len(interesting) - 10} more (see the report, or use -v)"
            yield paint(more, "dim")

    def _pairs_summary(self, result: ExpectationResult) -> str:
        count = len(result.evidence)
        if count <= PAIRS_SHOWN:
            return ""
        good = sum(item.holds for item in result.evidence)
        return self.style.paint(f"  {good} of {count}", "green" if good == count else "red")

    def _evidence(self, item: Evidence, result: ExpectationResult, nested: bool) -> Iterator[str]:
        paint = self.style.paint
        indent = 7 if nested else 5
        mark = ""
        if not (nested and item.holds):
            mark = f"{self.style.mark('passed' if item.holds else result.status)} "
        source = f"{paint(item.source, 'magenta')}  " if item.source else ""
        extra = [shown(item.latency)] if item.latency is not None else []
        extra += [f"after {item.tries} tries, {shown(item.seconds)}"] if item.tries > 1 else []
        tail = paint("  " + ", ".join(extra), "dim") if extra else ""
        yield f"{' ' * indent}{mark}{source}{item.seen}{tail}"
        if not item.holds and item.why and item.why not in item.seen:
            yield from (paint(line, "red") for line in self._wrapped(item.why, indent + 2))
        if len(item.sightings) > 1:  # a single one is part of item.seen
            yield from (self._packet(line, indent + 2) for line in packet_lines(item.sightings))
        elif item.detail and (self.options.verbose or not item.holds):
            limit = 40 if self.options.verbose else 12
            lines = item.detail.splitlines()[:limit]
            yield from (paint(f"{' ' * (indent + 2)}{line}", "dim") for line in lines)
        if item.command and (self.options.verbose or not item.holds):
            # In the report, paths are relative to its folder; here, to the working folder.
            command = item.command.replace(
                "tcpdump -nr captures/",
                f"tcpdump -nr {self.options.results}/captures/",
            )
            yield f"{' ' * (indent + 2)}{paint('try it:', 'dim')} {command}"

    def _packet(self, line: str, indent: int) -> str:
        """A line about a packet. Outer headers are dim, so that the packet that applications see
        stands out."""
        start = " " * indent + self.style.paint("│ ", "blue")
        outer, separator, inner = line.partition(" | ")
        if not separator:
            return start + line
        return start + self.style.paint(outer + separator, "dim") + inner

    def _case_end(self, result: CaseResult) -> Iterator[str]:
        if result.status == "skipped":
            reason = self.style.paint(result.reason, "yellow")
            yield f"{self.style.mark('skipped')} {result.case.id}  {reason}"
            return
        if not self.options.quiet:
            yield ""
        checks = len(result.expectations)
        looks = sum(len(one.evidence) for one in result.expectations)
        packets = sum(capture.total for capture in result.captures)
        facts = [_plural(checks, "expectation"), _plural(looks, "observation")]
        facts += [f"{packets} packets captured"] if packets else []
        tail = self.style.paint(f"{' · '.join(facts)} · {shown(result.seconds)}", "dim")
        name = self.style.paint(result.case.id, "bold")
        yield f"{self.style.mark(result.status)} {name} {result.status}  {tail}"
        if result.problem and (self.options.quiet or not result.steps):
            yield from (self.style.paint(line, "red") for line in self._wrapped(result.problem, 3))

    def _summary(self, event: RunFinished) -> Iterator[str]:
        paint = self.style.paint
        result = event.result
        yield ""
        yield paint("━" * self.width, "cyan")
        broken = [case for case in result.cases if case.status in ("failed", "error")]
        skipped = [case for case in result.cases if case.status == "skipped"]
        for case in broken:
            yield f"{self.style.mark(case.status)} {paint(case.case.id, 'bold')}  {_where(case)}"
            yield from (paint(line, "red") for line in self._wrapped(case.problem, 3))
        for reason, count in Counter(case.reason for case in skipped).items():
            yield f"{self.style.mark('skipped')} {count} skipped: {reason}"
        counts = [
            paint(
                f"{result.count(status)} {'could not run' if status == 'error' else status}",
                color,
                "bold",
            )
            for status, (_, color) in MARKS.items()
            if result.count(status)
        ]
        stopped = paint("  interrupted", "yellow", "bold") if result.interrupted else ""
        yield f"{', '.join(counts) or 'nothing ran'} in {shown(result.seconds)}{stopped}"
        yield f"report: {self.options.results / REPORT_FILE}"


class _Live:
    """One line with a spinner that is rewritten while a step runs."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text = ""
        self.turn = 0
        self.lock = threading.Lock()
        threading.Thread(target=self._spin, daemon=True).start()

    def show(self, text: str) -> None:
        with self.lock:
            self.text = text
            self._draw()

    def clear(self) -> None:
        with self.lock:
            if self.text:
                self.stream.write("\r\033[K")
                self.stream.flush()
            self.text = ""

    def _draw(self) -> None:
        if self.text:
            spinner = SPINNER[self.turn % len(SPINNER)]
            self.stream.write(f"\r\033[K   \033[36m{spinner}\033[0m \033[2m{self.text}\033[0m")
            self.stream.flush()

    def _spin(self) -> None:
        wake = threading.Event()
        while not wake.wait(0.1):
            with self.lock:
                self.turn += 1
                self._draw()


def _where(case: CaseResult) -> str:
    for step in case.steps:
        for one in step.expectations:
            if one.status != "passed":
                return one.expectation.where
        if step.status != "passed":
            return step.step.where
    return ""


def _plural(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _length(text: str) -> int:
    return len(ANSI.sub("", text))


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _indented(text: str, indent: int) -> list[str]:
    return [" " * indent + line for line in text.splitlines()]


def _doing(action: str) -> str:
    return {
        "apply": "apply manifests",
        "component": "component",
        "exec": "command",
        "expect": "checks",
    }.get(action, action)
