"""Reads flags as cobra and pflag do: --name=value, --name value, -n value, --boolean."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from kubewire.components.base.golang import parse_bool, parse_duration, quote

Value = str | int | bool | float


@dataclass(frozen=True)
class Flag:
    """A flag; its default has its type. duration: a float in seconds, given as a Go duration."""

    name: str
    default: Value
    usage: str = ""
    short: str = ""
    duration: bool = False


#: The flags of klog, which upstream's agnhost accepts for every subcommand. They have no effect
#: here.
LOGGING = (
    Flag("v", "0", "number for the log level verbosity", short="v"),
    Flag("logtostderr", True),
    Flag("alsologtostderr", False),
    Flag("stderrthreshold", "2"),
    Flag("vmodule", ""),
)


class Usage(SystemExit):
    """Flags or arguments are wrong. The message is cobra's, and the exit code is 1."""

    def __init__(self, command: str, message: str) -> None:
        print(f"Error: {message}\nRun 'app {command} --help' for usage.", file=sys.stderr)
        super().__init__(1)


def parse(
    command: str,
    flags: Sequence[Flag],
    argv: Sequence[str],
) -> tuple[dict[str, Value], list[str]]:
    """Returns the values of the flags, and the other arguments.

    Raises Usage, or SystemExit(0) after --help.
    """
    known = {f"--{flag.name}": flag for flag in (*LOGGING, *flags)}
    known |= {f"-{flag.short}": flag for flag in (*LOGGING, *flags) if flag.short}
    values: dict[str, Value] = {flag.name: flag.default for flag in flags}
    rest: list[str] = []
    queue = list(argv)
    while queue:
        word = queue.pop(0)
        if word == "--":
            return values, rest + queue
        if not word.startswith("-") or word == "-":
            rest.append(word)
            continue
        if word in ("--help", "-h"):
            _help(command, flags)
            raise SystemExit(0)
        name, equals, text = word.partition("=")
        flag = known.get(name)
        if flag is None:
            shown = f"shorthand flag: {quote(name[1:2])} in {name}"
            if name.startswith("--"):
                shown = f"flag: {name}"
            raise Usage(command, f"unknown {shown}")
        if not equals and isinstance(flag.default, bool):
            text = "true"
        elif not equals:
            if not queue:
                raise Usage(command, f"flag needs an argument: {name}")
            text = queue.pop(0)
        values[flag.name] = _value(command, flag, text)
    return values, rest


def _value(command: str, flag: Flag, text: str) -> Value:
    try:
        if flag.duration:
            return parse_duration(text)
        if isinstance(flag.default, bool):
            return parse_bool(text)
        if isinstance(flag.default, int):
            try:
                return int(text, 0)
            except ValueError:
                problem = f"strconv.ParseInt: parsing {quote(text)}: invalid syntax"
                raise ValueError(problem) from None
        return text
    except ValueError as err:
        message = f'invalid argument {quote(text)} for "--{flag.name}" flag: {err}'
        raise Usage(command, message) from None


def _help(command: str, flags: Sequence[Flag]) -> None:
    print(f"Usage:\n  app {command} [flags]\n\nFlags:")
    for flag in flags:
        short = f"-{flag.short}, " if flag.short else "    "
        print(f"  {short}--{flag.name}  {flag.usage} (default {flag.default})")
