"""The errors a user of the command line sees: one line that says what is wrong and what to do."""

from __future__ import annotations

import re

#: Control characters of ECMA-48, 7-bit and 8-bit, but for tabs and ends of lines.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """For a terminal: without control characters, for in what a lab says there may be any."""
    return _CONTROL.sub("?", text)


class LabError(Exception):
    """Base of all; str() is what is printed, exit_code what `kubewire` ends with."""

    exit_code = 1


class UsageError(LabError):
    """Something the user wrote: an unknown lab, host, file or port."""

    exit_code = 2


class BringUpFailed(LabError):
    """A step of bring-up failed: which, on which node, with which command, and its output."""

    def __init__(self, step: str, reason: str, *, node: str = "", command: str = "", output: str = "") -> None:
        self.step, self.reason, self.node, self.command, self.output = step, reason, node, command, output
        super().__init__(str(self))

    def fields(self) -> dict[str, str]:
        """For BringUpFailed(**fields) in another process."""
        return {name: getattr(self, name) for name in ("step", "reason", "node", "command", "output")}

    def __str__(self) -> str:
        lines = [f"step failed: {self.step}" + (f" (on {self.node})" if self.node else ""), f"  {self.reason}"]
        if self.command:
            lines.append(f"  command: {self.command}")
        lines += [f"  | {line}" for line in self.output.splitlines()[-15:]]
        return "\n".join(lines)
