"""The examples of components/kubeapi/README.md do what they say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from tests.components.apiserver.running import RunningApiServer

KUBEAPI = Path(__file__).parents[3] / "components/kubeapi"
README = KUBEAPI / "README.md"


def test_the_pure_examples_hold() -> None:
    results = doctest.testfile(str(README), module_relative=False, report=True)
    assert results.attempted >= 6
    assert results.failed == 0


def test_the_loop_of_informer_and_queue_runs() -> None:
    (code,) = (
        text for text in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "asyncio.Queue()" in text
    )
    with RunningApiServer() as server:
        exec(compile(code, str(README), "exec"), {"KUBECONFIG": server.kubeconfig})


def test_every_module_is_named() -> None:
    text = README.read_text()
    modules = [path.name for path in KUBEAPI.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if f"`{name}`" not in text] == []
