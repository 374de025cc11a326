"""The README's example runs as written."""

import doctest
from pathlib import Path

import kubewire.components.networks.azure_cni


def test_the_example():
    readme = Path(kubewire.components.networks.azure_cni.__file__).with_name("README.md")
    failed, tried = doctest.testfile(str(readme), module_relative=False)
    assert (failed, tried > 0) == (0, True)
