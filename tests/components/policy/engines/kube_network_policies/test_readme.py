"""The README's example runs as written."""

import doctest
from pathlib import Path

import kubewire.components.policy.engines.kube_network_policies


def test_the_example() -> None:
    readme = Path(kubewire.components.policy.engines.kube_network_policies.__file__).with_name("README.md")
    failed, tried = doctest.testfile(str(readme), module_relative=False)
    assert (failed, tried > 0) == (0, True)
