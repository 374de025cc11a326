"""Boolean query parameters are read as apimachinery reads them: clients write true, True, 1 or nothing at all."""

import pytest

from kubewire.components.apiserver.http.connect import stream_parameters
from kubewire.components.apiserver.http.requestinfo import flag


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("true", True),
        ("True", True),
        ("1", True),
        ("", True),
        ("yes", True),
        ("false", False),
        ("False", False),
        ("0", False),
    ],
)
def test_a_flag_is_on_unless_it_says_false(value: str, read: bool) -> None:
    assert flag(value) is read


def test_a_parameter_that_is_not_given_is_off() -> None:
    assert flag(None) is False


def test_pythons_booleans_reach_the_kubelet() -> None:
    query = [("command", "ls"), ("stdin", "False"), ("stdout", "True"), ("stderr", "True"), ("tty", "False")]
    assert stream_parameters(query) == [("output", "1"), ("error", "1"), ("command", "ls")]
