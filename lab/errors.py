"""The errors that end a command. Each prints as one message that says what happened and what the
user can do."""

from __future__ import annotations

import re

#: Control characters of ECMA-48, 7-bit and 8-bit, except tab and newline.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Replace control characters, so that text which comes from a lab can be printed on a
    terminal."""
    return _CONTROL.sub("?", text)


class LabError(Exception):
    """Base of all errors. str() is the message, exit_code the exit code of `kubewire`."""

    exit_code = 1


class UsageError(LabError):
    """The input is wrong: an unknown lab, host, file or port, or a value that cannot be used."""

    exit_code = 2


class BringUpFailed(LabError):
    """A step of bring-up failed. Carries the step, the reason and, if they are known, the node, the
    command and its output."""

    def __init__(
        self,
        step: str,
        reason: str,
        *,
        node: str = "",
        command: str = "",
        output: str = "",
    ) -> None:
        self.step = step
        self.reason = reason
        self.node = node
        self.command = command
        self.output = output
        super().__init__(str(self))

    def fields(self) -> dict[str, str]:
        """The fields as data; BringUpFailed(**fields) makes the same error in another process."""
        names = ("step", "reason", "node", "command", "output")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        lines = [
            f"step failed: {self.step}" + (f" (on {self.node})" if self.node else ""),
            f"  {self.reason}",
        ]
        if self.command:
            lines.append(f"  command: {self.command}")
        lines += [f"  | {line}" for line in self.output.splitlines()[-15:]]
        return "\n".join(lines)
