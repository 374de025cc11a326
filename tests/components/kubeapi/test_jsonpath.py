"""JSONPath as kubectl reads it; the examples are those of its documentation."""

import pytest

from kubewire.components.kubeapi.jsonpath import JSONPath, JSONPathError

DATA = {
    "kind": "List",
    "items": [
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
            "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]},
        },
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.2"},
            "status": {"capacity": {"cpu": "8"}, "addresses": [{"type": "a", "address": "127.0.0.2"}, {"type": "b", "address": "127.0.0.3"}]},
        },
    ],
    "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"username": "admin", "age": 7}}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind is {.kind}", "kind is List"),
        ("{['kind']}", "List"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.users[0].name}", "myself"),
        ("{.users[-1].name}", "e2e"),
        ("{.users[0:1].name}", "myself"),
        ("{.users[0,1].name}", "myself e2e"),
        ('{.users[?(@.name=="e2e")].user.username}', "admin"),
        ("{.users[?(@.user.age>5)].name}", "e2e"),
        ("{.users[?(@.user.username)].name}", "e2e"),
        (r"{.items[0].metadata.labels.kubernetes\.io/hostname}", "127.0.0.1"),
        (".kind", "List"),
        ("{.items[1].status.addresses[?(@.type!='a')].address}", "127.0.0.3"),
        ("{.nothing.here}", ""),
        ("{.users[1].user}", '{"age": 7, "username": "admin"}'),
    ],
)
def test_as_kubectl(text, said):
    assert JSONPath.parse(text).render(DATA) == said


@pytest.mark.parametrize("text", ["{.a", "{.a[}", "{.a[?(@.b==c)]}", "{.a[?(]}", "{.a b}"])
def test_what_cannot_be_read_is_an_error(text):
    with pytest.raises(JSONPathError):
        JSONPath.parse(text)


@pytest.mark.parametrize("text", ['"', '""0', '"a', '{"a" b}'])
def test_half_a_string_is_no_expression(text):
    with pytest.raises(JSONPathError, match="is not a string"):
        JSONPath.parse(text)
