"""Faults of links as tc(8) has them: netem(8) delays, loses, reorders; tbf(8) alone limits the rate.

They act on what leaves an interface, so a delay of 100 ms at one end is 100 ms of round-trip time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubewire.scenarios.engine.file.duration import seconds

#: step's key -> netem's word; what only netem can do.
_NETEM = ("delay", "loss", "duplicate", "corrupt", "reorder")


def requires(args: Mapping[str, Any]) -> str:
    """The kernel feature that a link step needs; "" when it only restores."""
    if any(key in args for key in _NETEM):
        return "netem"
    return "tbf" if "rate" in args else ""


def problem(args: Mapping[str, Any]) -> str:
    """Why a link step makes no sense; "" when it does."""
    if "restore" in args:
        extra = sorted(set(args) - {"on", "interface", "restore"})
        return f"restore takes no {', '.join(extra)}" if extra else ""
    if not requires(args):
        return f"needs one of {', '.join(_NETEM)}, rate, or restore: true"
    if "reorder" in args and "delay" not in args:
        return "reorder needs delay: what is not delayed overtakes (netem(8))"
    if "jitter" in args and "delay" not in args:
        return "jitter needs delay"
    return ""


def discipline(args: Mapping[str, Any]) -> list[str]:
    """The queueing discipline with its parameters, as tc takes them."""
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
    """Where it goes, by `tc qdisc show dev X`: below the lab file's own bandwidth limit, else as root."""
    for line in shown.splitlines():
        words = line.split()
        if words[:2] == ["qdisc", "tbf"] and "root" in words and words[2] != MARK:
            return ("parent", f"{words[2]}1")
    return ("root",)


#: The handle of what a step has put there.
MARK = "4b57:"


def install(interface: str, shown: str, args: Mapping[str, Any]) -> list[str]:
    """The tc command that makes a link faulty, or otherwise faulty than before."""
    return ["tc", "qdisc", "replace", "dev", interface, *place(shown), "handle", MARK, *discipline(args)]


def remove(interface: str, shown: str) -> list[str]:
    """The tc command that makes it as it was; nothing ([]) when it is."""
    if not any(line.split()[2:3] == [MARK] for line in shown.splitlines()):
        return []
    return ["tc", "qdisc", "del", "dev", interface, *place(shown)]
