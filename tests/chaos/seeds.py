"""How much chaos, and from which seed: KUBEWIRE_CHAOS (a number of kills) and KUBEWIRE_CHAOS_SEED."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Mapping


def kills(default: int, environment: Mapping[str, str] = os.environ) -> int:
    """$KUBEWIRE_CHAOS, or the bounded share of the default suite. Raises ValueError."""
    text = environment.get("KUBEWIRE_CHAOS", "")
    if not text:
        return default
    if not text.isdecimal() or not int(text):
        raise ValueError(f"KUBEWIRE_CHAOS={text!r}: a number of kills, e.g. 200")
    return int(text)


def seed(environment: Mapping[str, str] = os.environ) -> int:
    """$KUBEWIRE_CHAOS_SEED, or a new one. Raises ValueError.

    pytest shows what it prints when the test fails. A seed fixes what is chosen and when it is meant to happen; how
    the kernel interleaves the processes is not in anybody's hand.
    """
    text = environment.get("KUBEWIRE_CHAOS_SEED", "")
    if text and not text.isdecimal():
        raise ValueError(f"KUBEWIRE_CHAOS_SEED={text!r}: the number that a failure has printed")
    chosen = int(text) if text else secrets.randbelow(1_000_000)
    print(f"again with: KUBEWIRE_CHAOS_SEED={chosen}")
    return chosen


def generator(number: int | str, name: str) -> random.Random:
    """One thread's own choices: how fast the others are does not change them."""
    return random.Random(f"{number} {name}")
