"""The verb `exec`: any command, judged by its exit code and output."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import Annotated, ClassVar

from kubewire.scenarios.engine.file.duration import seconds
from kubewire.scenarios.engine.handle import Completed
from kubewire.scenarios.engine.scene.scene import End, NotYet, Scene, typed
from kubewire.scenarios.engine.verbs.arguments import (
    Duration,
    Form,
    Pattern,
    Patterns,
    Texts,
    Value,
)
from kubewire.scenarios.engine.verbs.base import (
    Look,
    Observation,
    first_lines,
    quoted,
    text_problem,
)


def argv_of(command: tuple[str, ...]) -> list[str]:
    """The words to execute: a list as it is, a single text by the shell."""
    return ["sh", "-c", command[0]] if len(command) == 1 else list(command)


def execute(scene: Scene, source: End, argv: list[str], timeout: float = 10.0) -> Completed:
    """Runs a command at the source. Raises NotYet if the source does not exist yet, or if the
    command takes too long."""
    try:
        return scene.lab.exec(source.target, argv, timeout=timeout)
    except LookupError as error:
        raise NotYet(str(error)) from error
    except TimeoutError:
        raise NotYet(f"{shlex.join(argv)} took longer than {timeout:g} s") from None


def exit_problem(done: Completed, wanted: int | str) -> str:
    """Why an exit code is not as wanted (a code, "any" or "nonzero"); "" if it is."""
    if wanted == "any" or done.returncode == wanted or (wanted == "nonzero" and done.returncode):
        return ""
    said = quoted((done.stderr or done.stdout).decode(errors="replace"), 200)
    return f"expected exit code {wanted}, got {done.returncode} {said}"


@dataclass(frozen=True)
class Exec(Look):
    """A command: its exit code, standard output and standard error."""

    SHORT_FORM: ClassVar = "command"
    command: Annotated[Texts, "a list of words, or one text for the shell"]
    exit: Annotated[
        int | str,
        Form({"anyOf": [{"type": "integer"}, {"enum": ["any", "nonzero"]}]}),
        "the exit code",
    ] = 0
    timeout: Annotated[Duration, "time after which the command is ended and tried again"] = 10.0
    stderr: Annotated[Pattern, "a regular expression that must match in standard error"] = ""
    equals: Annotated[Value, "the exact standard output, without surrounding white space"] = None
    contains: Annotated[Texts, "texts that must all occur in it"] = ()
    matches: Annotated[Patterns, "regular expressions that must all match in it"] = ()
    absent: Annotated[Patterns, "regular expressions that must not match in it"] = ()

    def look(self, scene: Scene, source: End) -> Observation:
        argv = argv_of(self.command)
        began = time.monotonic()
        done = execute(scene, source, argv, scene.left(seconds(self.timeout)))
        why = (
            exit_problem(done, self.exit)
            or text_problem(
                done.text,
                equals=self.equals,
                contains=self.contains,
                matches=self.matches,
                absent=self.absent,
            )
            or text_problem(
                done.stderr.decode(errors="replace"),
                matches=(self.stderr,) if self.stderr else (),
            )
        )
        shown = self.command[0] if len(self.command) == 1 else shlex.join(argv)
        output = done.stdout or done.stderr
        return Observation(
            holds=not why,
            command=typed(source, shlex.join(argv)),
            seen=f"{shown}  exit {done.returncode} {quoted(output.decode(errors='replace'), 60)}",
            why=why,
            detail=first_lines(output.decode(errors="replace")),
            latency=time.monotonic() - began,
        )


VERBS = {"exec": Exec}
