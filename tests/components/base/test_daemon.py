"""How main functions are told to end."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from kubewire.components.base.daemon import termination


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_and_does_not_end_the_process(number: signal.Signals) -> None:
    async def told() -> bool:
        asked = termination()
        assert not asked.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            return await asked.wait()

    assert asyncio.run(told())
