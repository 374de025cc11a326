"""Boolean query parameters are read as apimachinery reads them: clients write true, True, 1 or nothing at all."""

import pytest

from kubewire.components.apiserver.http.connectnames import stream_parameters
from kubewire.components.apiserver.http.requestinfo import flag, parse


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


@pytest.mark.parametrize(
    ("path", "name", "rest"),
    [
        pytest.param("pods/p/proxy/a%20b/c", "p", "/a%20b/c", id="the rest stays as it was sent"),
        pytest.param("services/https%3As%3A443/proxy/x", "https:s:443", "/x", id="a name with escapes"),
        pytest.param("services/p/proxy", "p", "", id="no rest"),
        pytest.param("services/p/proxy/", "p", "/", id="a slash alone"),
    ],
)
def test_the_rest_of_a_path_after_a_connecting_subresource(path: str, name: str, rest: str) -> None:
    info = parse("GET", f"/api/v1/namespaces/default/{path}", {})
    assert (info.name, info.rest) == (name, rest)
