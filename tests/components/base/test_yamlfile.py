"""Text that no loader should build, and the error that names where and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubewire.components.base import yamlfile
from kubewire.components.base.yamlfile import Limits, YamlFileError

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {a: 1, b: 2, c: 3}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[" * 5000, "F:1: nested deeper than the 100 levels", id="brackets that end libyaml's loader"),
        pytest.param("[" * 200_000, "F:1: nested deeper than the 100 levels", id="more brackets"),
        pytest.param("- " * 5000 + "a", "F:1: nested deeper", id="nested block sequences"),
        pytest.param("? " * 5000 + "a", "F:1: nested deeper", id="nested keys"),
        pytest.param("\n".join(" " * n + "a:" for n in range(300)), "F:101: nested deeper", id="indentation"),
        pytest.param(BOMB, "F:6: more than the 100000 values", id="billion laughs"),
        pytest.param(MERGE_BOMB, "F:6: more than the 100000 values", id="merge keys of merge keys"),
        pytest.param(
            "a: &a\n- " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60, "F:3: nested", id="depth by alias"
        ),
        pytest.param("&a [*a]", "F:1: the alias *a contains itself", id="a list in itself"),
        pytest.param("x:\n  a: &a {b: *a}", "F:2: the alias *a contains itself", id="a mapping in itself"),
        pytest.param("a: 1\nb: *c", "F:2: not YAML: found undefined alias", id="an unknown alias"),
        pytest.param("a: 1\nb: " + "9" * 5000, "F:2: not YAML: '9999", id="a number of 5000 digits"),
        pytest.param("!!int 1:1", "F:1: not YAML: '1:1' is no integer", id="base 60 by tag"),
        pytest.param("!!bool foo", "F:1: not YAML: 'foo' is no boolean", id="no boolean"),
        pytest.param("- a\n- !!float inf", "F:2: not YAML: 'inf' is no finite number", id="no JSON number"),
        pytest.param("!!timestamp 2001-99-99", "F:1: not YAML: could not determine a constructor", id="a date by tag"),
        pytest.param("!!set [a]", "F:1: not YAML: could not determine a constructor", id="no JSON type"),
        pytest.param("!!python/object:os.system x", "F:1: not YAML: could not determine", id="an object"),
        pytest.param(
            "{[1]: 2}", "F:1: not YAML: while constructing a mapping found unhashable key", id="a list as key"
        ),
        pytest.param("a: b: c", "F:1: not YAML: mapping values are not allowed", id="syntax"),
        pytest.param("\x00", "F: not YAML: unacceptable character", id="NUL"),
        pytest.param("\ud800", "F: not YAML: ", id="half a surrogate pair"),
        pytest.param("x" * (3 * 1024 * 1024 + 1), "F: larger than the 3145728 bytes", id="size"),
        pytest.param("- a\n" * 100_001, "F:100000: more than the 100000 values", id="values"),
    ],
)
def test_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(YamlFileError) as caught:
        yamlfile.load(text, "F")
    assert str(caught.value).startswith(said)
    with pytest.raises(YamlFileError):
        yamlfile.load_all(text, "F")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", None),
        ("a: [1, -2, 0x1f, 0b11, 017, 1_000, +3]", {"a": [1, -2, 31, 3, 15, 1000, 3]}),
        ("[1.5, .5, -2., 1.5e3, on, 'no', ~, true]", [1.5, 0.5, -2.0, 1500.0, True, "no", None, True]),
        ("[2001-01-01, 1:30, 1:30.5, .inf, =, 1e3, 089]", ["2001-01-01", "1:30", "1:30.5", ".inf", "=", "1e3", "089"]),
        ("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a", {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}}),
    ],
)
def test_the_types_of_json(text: str, data: object) -> None:
    assert yamlfile.load(text, "F") == data


def test_every_document_is_read_and_anchors_end_with_theirs() -> None:
    assert yamlfile.load_all("a: &a 1\n---\nb: 2\n", "F") == [{"a": 1}, {"b": 2}]
    with pytest.raises(YamlFileError, match="F:3: not YAML: found undefined alias"):
        yamlfile.load_all("a: &a 1\n---\nb: *a\n", "F")
    with pytest.raises(YamlFileError, match=r"F:2: not YAML: .*single document"):
        yamlfile.load("a: 1\n---\nb: 2", "F")


def test_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(YamlFileError, match=f"{path}:2: not YAML: not a text in UTF-8 \\(byte 8 is 0xff\\)") as caught:
        yamlfile.read(path)
    assert caught.value.line == 2


def test_a_file_without_end_is_not_read_to_it() -> None:
    with pytest.raises(YamlFileError, match="/dev/zero: larger than the 100 bytes that are allowed"):
        yamlfile.read(Path("/dev/zero"), Limits(size=100))
