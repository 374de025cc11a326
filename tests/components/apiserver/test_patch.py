"""JSON patch, merge patch and strategic merge patch."""

from __future__ import annotations

import pytest

from kubewire.components.apiserver.registry.patch import (
    PatchError,
    PatchTestFailed,
    json_patch,
)
from kubewire.components.apiserver.registry.strategicmerge import PatchFormatError, strategic_merge
from kubewire.components.kubeapi.mergepatch import merge_patch

# RFC 7386, appendix A, as it stands there.
RFC_7386 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), RFC_7386)
def test_merge_patch_does_what_the_rfc_lists(target: object, patch: object, expected: object) -> None:
    assert merge_patch(target, patch) == expected


JSON_PATCHES = {
    "add an object member": (
        {"foo": "bar"},
        [{"op": "add", "path": "/baz", "value": "qux"}],
        {"foo": "bar", "baz": "qux"},
    ),
    "add an array element": (
        {"foo": ["bar", "baz"]},
        [{"op": "add", "path": "/foo/1", "value": "qux"}],
        {"foo": ["bar", "qux", "baz"]},
    ),
    "add to the end": ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["a"]}], {"foo": ["bar", ["a"]]}),
    "add replaces a member": ({"foo": 1}, [{"op": "add", "path": "/foo", "value": 2}], {"foo": 2}),
    "add a nested member": (
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"g": {}}}],
        {"foo": "bar", "child": {"g": {}}},
    ),
    "remove a member": ({"baz": 1, "foo": 2}, [{"op": "remove", "path": "/baz"}], {"foo": 2}),
    "remove an element": ({"foo": [1, 2, 3]}, [{"op": "remove", "path": "/foo/1"}], {"foo": [1, 3]}),
    "replace the whole": ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    "move a member": (
        {"foo": {"bar": 1}, "qux": {}},
        [{"op": "move", "from": "/foo/bar", "path": "/qux/x"}],
        {"foo": {}, "qux": {"x": 1}},
    ),
    "move an element": (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    "copy": ({"a": [1]}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": [1], "b": [1]}),
    "test, then act": (
        {"a": {"b": [1, "2"]}},
        [{"op": "test", "path": "/a/b/1", "value": "2"}, {"op": "remove", "path": "/a/b/0"}],
        {"a": {"b": ["2"]}},
    ),
    "escaped names": (
        {"m~n": 1, "a/b": 2},
        [{"op": "replace", "path": "/a~1b", "value": 3}, {"op": "remove", "path": "/m~0n"}],
        {"a/b": 3},
    ),
    "absent tests equal to null": ({}, [{"op": "test", "path": "/a", "value": None}], {}),
}


@pytest.mark.parametrize(("document", "patch", "expected"), JSON_PATCHES.values(), ids=JSON_PATCHES.keys())
def test_json_patch(document: object, patch: list[dict[str, object]], expected: object) -> None:
    assert json_patch(document, patch) == expected


BAD_JSON_PATCHES = {
    "remove what is not there": ({}, [{"op": "remove", "path": "/a"}]),
    "replace what is not there": ({}, [{"op": "replace", "path": "/a", "value": 1}]),
    "add below what is not there": ({}, [{"op": "add", "path": "/a/b", "value": 1}]),
    "add beyond the end": ({"a": []}, [{"op": "add", "path": "/a/1", "value": 1}]),
    "leading zero": ({"a": [1, 2]}, [{"op": "remove", "path": "/a/01"}]),
    "negative index": ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}]),
    "no slash": ({"a": 1}, [{"op": "remove", "path": "a"}]),
    "unknown operation": ({}, [{"op": "spam", "path": "/a"}]),
    "no value": ({}, [{"op": "add", "path": "/a"}]),
    "into its own child": ({"a": {"b": 1}}, [{"op": "move", "from": "/a", "path": "/a/b"}]),
    "no array of operations": ({}, {"op": "add", "path": "/a", "value": 1}),
}


@pytest.mark.parametrize(("document", "patch"), BAD_JSON_PATCHES.values(), ids=BAD_JSON_PATCHES.keys())
def test_json_patch_refuses(document: object, patch: list[dict[str, object]]) -> None:
    with pytest.raises(PatchError):
        json_patch(document, patch)


@pytest.mark.parametrize("value", [2, "1", True, [1], None])
def test_json_patch_test_operation_fails_on_another_value(value: object) -> None:
    with pytest.raises(PatchTestFailed):
        json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": value}])


def test_patches_leave_their_arguments_alone() -> None:
    document = {"a": {"b": [1, 2]}, "l": [{"name": "x", "v": 1}]}
    json_patch(document, [{"op": "remove", "path": "/a/b/0"}, {"op": "add", "path": "/l/0/v", "value": 2}])
    merge_patch(document, {"a": {"b": None}})
    strategic_merge(document, {"l": [{"name": "x", "v": 5}], "a": {"$patch": "replace"}}, merge_key)
    assert document == {"a": {"b": [1, 2]}, "l": [{"name": "x", "v": 1}]}


def merge_key(path: tuple[str, ...]) -> str | None:
    return {("l",): "name", ("l", "ports"): "port", ("finalizers",): "set", ("spec", "l"): "name"}.get(path)


def items(*names: str) -> list[dict[str, object]]:
    return [{"name": name} for name in names]


STRATEGIC = {
    "merges an item by its key": (
        {"l": [{"name": "a", "x": 1}, {"name": "b"}]},
        {"l": [{"name": "a", "y": 2}]},
        {"l": [{"name": "a", "x": 1, "y": 2}, {"name": "b"}]},
    ),
    "puts a new item in front": ({"l": items("a")}, {"l": items("b")}, {"l": items("b", "a")}),
    "puts items into the patch's order": (
        {"l": items("a", "server", "b")},
        {"l": items("n", "b", "a")},
        {"l": items("n", "server", "b", "a")},
    ),
    "puts new values of a set in front": (
        {"finalizers": ["a", "b"]},
        {"finalizers": ["c", "b"]},
        {"finalizers": ["c", "a", "b"]},
    ),
    "merges lists inside items": (
        {"l": [{"name": "a", "ports": [{"port": 80, "n": "x"}]}]},
        {"l": [{"name": "a", "ports": [{"port": 80, "n": "y"}, {"port": 81}]}]},
        {"l": [{"name": "a", "ports": [{"port": 80, "n": "y"}, {"port": 81}]}]},
    ),
    "replaces a list without a key": ({"args": [1, 2]}, {"args": [3]}, {"args": [3]}),
    "unites a set": ({"finalizers": ["a", "b"]}, {"finalizers": ["b", "c"]}, {"finalizers": ["a", "b", "c"]}),
    "removes by null": ({"a": 1, "b": {"c": 1, "d": 2}}, {"a": None, "b": {"c": None}}, {"b": {"d": 2}}),
    "drops nulls in what is new": ({}, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
    "$patch: delete takes an item": (
        {"l": items("a", "b")},
        {"l": [{"name": "a", "$patch": "delete"}]},
        {"l": items("b")},
    ),
    "$patch: delete takes a map": ({"m": {"a": 1}, "n": 1}, {"m": {"$patch": "delete"}}, {"n": 1}),
    "$patch: replace of a map": ({"m": {"a": 1}}, {"m": {"b": 2, "$patch": "replace"}}, {"m": {"b": 2}}),
    "$patch: replace of a list": (
        {"l": items("a", "b")},
        {"l": [{"name": "c"}, {"$patch": "replace"}]},
        {"l": items("c")},
    ),
    "$retainKeys keeps only those": (
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"x": 1}}},
        {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
        {"strategy": {"type": "Recreate"}},
    ),
    "$deleteFromPrimitiveList": (
        {"finalizers": ["a", "b", "c"]},
        {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]},
        {"finalizers": ["d", "a", "c"]},
    ),
    "$setElementOrder sorts a keyed list": (
        {"l": items("a", "b", "c")},
        {"$setElementOrder/l": items("c", "a", "b"), "l": [{"name": "b", "x": 1}]},
        {"l": [{"name": "c"}, {"name": "a"}, {"name": "b", "x": 1}]},
    ),
    "$setElementOrder keeps what only the server has in place": (
        {"l": items("a", "server", "b")},
        {"$setElementOrder/l": items("a", "b", "n"), "l": items("n")},
        {"l": items("a", "server", "b", "n")},
    ),
    "$setElementOrder sorts a set": (
        {"finalizers": ["a", "b"]},
        {"$setElementOrder/finalizers": ["b", "a"]},
        {"finalizers": ["b", "a"]},
    ),
    "keys are found by the path of names": (
        {"spec": {"l": items("a")}},
        {"spec": {"l": items("b")}},
        {"spec": {"l": items("b", "a")}},
    ),
    "a scalar becomes a map": ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
}


@pytest.mark.parametrize(("original", "patch", "expected"), STRATEGIC.values(), ids=STRATEGIC.keys())
def test_strategic_merge(original: dict[str, object], patch: dict[str, object], expected: object) -> None:
    assert strategic_merge(original, patch, merge_key) == expected


FORMATS = {
    "a key that $retainKeys does not name": ({"m": {"$retainKeys": ["a"], "a": 1, "b": 2}}, "retainKeys"),
    "$retainKeys that are no list": ({"m": {"$retainKeys": "a"}}, "retainKeys"),
    "an item that the order does not name": ({"$setElementOrder/l": items("a"), "l": items("b")}, "setElementOrder list"),
    "items in another order": ({"$setElementOrder/l": items("a", "b"), "l": items("b", "a")}, "setElementOrder list"),
}  # fmt: skip


@pytest.mark.parametrize(("patch", "what"), FORMATS.values(), ids=FORMATS.keys())
def test_directives_of_a_wrong_form_have_upstreams_text(patch: dict[str, object], what: str) -> None:
    with pytest.raises(PatchFormatError, match=f"^invalid patch format of {what}$"):
        strategic_merge({"l": items("a"), "m": {}}, patch, merge_key)


BAD_STRATEGIC = {
    "an item without its key": {"l": [{"x": 1}]},
    "an item that is no map": {"l": ["a"]},
    "an unknown directive": {"m": {"$patch": "explode"}},
    "$retainKeys without a key that is set": {"m": {"$retainKeys": ["a"], "a": 1, "b": 2}},
    "$deleteFromPrimitiveList of no list": {"$deleteFromPrimitiveList/finalizers": "a"},
}


@pytest.mark.parametrize("patch", BAD_STRATEGIC.values(), ids=BAD_STRATEGIC.keys())
def test_strategic_merge_refuses(patch: dict[str, object]) -> None:
    with pytest.raises(PatchError):
        strategic_merge({"l": items("a"), "finalizers": ["a"]}, patch, merge_key)
