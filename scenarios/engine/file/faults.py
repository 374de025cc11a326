"""Makes the tc commands that disturb a link: tc-netem(8) delays, drops and reorders packets,
tc-tbf(8) limits the rate.

A queueing discipline acts on packets that leave an interface. So a delay of 100 ms at one end of a
link adds 100 ms, and not 200 ms, to the round-trip time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.scenarios.engine.file.duration import seconds

#: Keys of a link step that need netem, whose parameters have the same names.
_NETEM = ("delay", "loss", "duplicate", "corrupt", "reorder")


def requires(args: Mapping[str, Any]) -> str:
    """The kernel feature that a link step needs; "" if it only restores a link."""
    if any(key in args for key in _NETEM):
        return "netem"
    return "tbf" if "rate" in args else ""


def problem(args: Mapping[str, Any]) -> str:
    """Why a link step is wrong; "" if it is not."""
    if "restore" in args:
        extra = sorted(set(args) - {"on", "interface", "restore"})
        return f"restore cannot be combined with {', '.join(extra)}" if extra else ""
    if not requires(args):
        return f"needs one of {', '.join(_NETEM)}, rate, or restore: true"
    if "reorder" in args and "delay" not in args:
        return "reorder needs delay: packets without delay overtake the others (tc-netem(8))"
    if "jitter" in args and "delay" not in args:
        return "jitter needs delay"
    return ""


def discipline(args: Mapping[str, Any]) -> list[str]:
    """The queueing discipline and its parameters, as arguments of tc."""
    if requires(args) == "tbf":
        return ["tbf", "rate", args["rate"], "burst", "32kb", "latency", "400ms"]
    words = ["netem"]
    if "delay" in args:
        words += ["delay", *(_ms(args[key]) for key in ("delay", "jitter") if key in args)]
    for key in _NETEM[1:]:
        words += [key, args[key]] if key in args else []
    return words + (["rate", args["rate"]] if "rate" in args else [])


def _ms(value: float | str) -> str:
    return f"{seconds(value) * 1000:g}ms"


def place(shown: str) -> Sequence[str]:
    """Where to attach the discipline: below the bandwidth limit of the lab file, or else as root.
    shown: the output of `tc qdisc show dev X`."""
    for line in shown.splitlines():
        words = line.split()
        if words[:2] == ["qdisc", "tbf"] and "root" in words and words[2] != MARK:
            return ("parent", f"{words[2]}1")
    return ("root",)


#: The handle of the discipline that a step has added; it tells it from the lab's own.
MARK = "4b57:"


def install(interface: str, shown: str, args: Mapping[str, Any]) -> list[str]:
    """The tc command that disturbs a link, or replaces an earlier disturbance."""
    return [
        "tc",
        "qdisc",
        "replace",
        "dev",
        interface,
        *place(shown),
        "handle",
        MARK,
        *discipline(args),
    ]


def remove(interface: str, shown: str) -> list[str]:
    """The tc command that restores a link; [] if it is not disturbed."""
    if not any(line.split()[2:3] == [MARK] for line in shown.splitlines()):
        return []
    return ["tc", "qdisc", "del", "dev", interface, *place(shown)]
