"""How many inputs each property test gets: a bounded share by default, any number by KUBEWIRE_FUZZ_EXAMPLES.

By default the inputs are the same in each run (derandomized), so that the suite does not fail by chance. With
KUBEWIRE_FUZZ_EXAMPLES=N each test gets N random ones; the seed is printed, and KUBEWIRE_FUZZ_SEED=SEED repeats it.
"""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

#: Inputs for each test in the default suite. All of tests/fuzz takes less than 25 s of one core with it.
BOUNDED = 200
#: What one input may take on a busy machine; a parser that needs longer is stuck.
SLOWEST_S = 5.0
#: What a test may add to the process's peak, whatever it is fed.
GROWTH_MIB = 64

_WANTED = int(os.environ.get("KUBEWIRE_FUZZ_EXAMPLES", "0"))
_SEED = int(os.environ.get("KUBEWIRE_FUZZ_SEED", "0")) or random.SystemRandom().getrandbits(32)
_QUIET = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example)
_COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [*_QUIET, HealthCheck.function_scoped_fixture],
}

settings.register_profile("bounded", max_examples=BOUNDED, derandomize=True, **_COMMON)
settings.register_profile(
    "long", max_examples=max(_WANTED, 1), print_blob=True, phases=(Phase.generate, Phase.shrink), **_COMMON
)
settings.load_profile("long" if _WANTED else "bounded")


def pytest_report_header() -> list[str]:
    if not _WANTED:
        return [f"fuzz: {BOUNDED} inputs for each test, the same in each run"]
    return [f"fuzz: {_WANTED} inputs for each test; KUBEWIRE_FUZZ_SEED={_SEED} repeats them"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hypothesis draws from a seed of our own in long runs, and those have all the time that they need."""
    if not _WANTED:
        return
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            function = getattr(item, "obj", None)
            if function is not None and hasattr(function, "hypothesis"):
                setattr(item, "obj", seed(_SEED)(function))  # noqa: B010 (of pytest.Function)
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture
def examples() -> int:
    """How many inputs a test without Hypothesis takes from its corpus of mutations."""
    return _WANTED or BOUNDED


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """A source of mutations: the same in each default run, of the printed seed in long ones."""
    return random.Random(f"{_SEED}" if _WANTED else request.node.nodeid)


@pytest.fixture
def timely() -> Callable[[Callable[[], object]], None]:
    """timely(work): run it; it fails when that takes longer than any input may."""

    def run(work: Callable[[], object]) -> None:
        begun = time.perf_counter()
        work()
        took = time.perf_counter() - begun
        assert took < SLOWEST_S, f"one input took {took:.1f} s"

    return run


@pytest.fixture(scope="session")
def warm() -> None:
    """Hypothesis loads its tables of characters when it first draws a text."""

    @given(st.text())
    @settings(max_examples=5)
    def draw(_: str) -> None:
        pass

    draw()


@pytest.fixture(autouse=True)
def bounded_growth(warm: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """The peak of the process's memory grows by a bounded amount, however many inputs there were.

    Hypothesis keeps what it has drawn, some kilobytes for each input: in long runs the tests of mutations measure.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    if _WANTED and hasattr(getattr(request.node, "obj", None), "hypothesis"):
        return
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < GROWTH_MIB, f"the process has grown by {grown} MiB"
