"""Files of users: whatever they hold, the loader says data of JSON's types, or one error with the file's name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kubewire.components.base import yamlfile
from tests.fuzz.mutation import mutated

#: What YAML's grammar is made of, so that random texts get past its first characters.
_PIECES = st.sampled_from(
    [
        *(
            "[",
            "]",
            "{",
            "}",
            ",",
            ": ",
            "\n",
            "\n  ",
            "- ",
            "? ",
            "&a ",
            "*a",
            "&b ",
            "*b",
            "<<: ",
            "!!int ",
            "!!map ",
        ),
        *(
            "!!float ",
            "!!binary ",
            "!x ",
            "|",
            ">-\n ",
            "'",
            '"',
            "#",
            "---\n",
            "...\n",
            "%YAML 1.1\n",
            "a",
            "0x",
            "1:1",
        ),
        *("1_0", "9" * 30, "2001-01-01", "~", "on", ".inf", "\t", "\\x", "@", "`", "\x00", "\ufeff", "\u2028", "é"),
    ]
)
_TEXTS = st.lists(_PIECES | st.text(max_size=3), max_size=60).map("".join)
_CORPUS = (
    b"lab:\n  nodes: &n 3\n  cni: {plugin: calico, backend: bgp}\nmore: [*n, *n]\n",
    b"a: &a [1, 2]\nb: {<<: {x: *a}, y: 'text'}\n---\n- |\n  block\n- >-\n  folded\n",
    b"? [complex]\n: value\n? - nested\n: - - - a\n",
)


def _loads(text: str) -> None:
    try:
        data = yamlfile.load_all(text, "FILE")
    except yamlfile.YamlFileError as error:
        assert str(error).startswith("FILE")
        assert "\n" not in str(error)
    else:
        for one in data:
            json.dumps(_with_text_keys(one), allow_nan=False)


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


@given(_TEXTS)
def test_any_text(text: str) -> None:
    _loads(text)


def test_mutated_files(examples: int, chance: random.Random, timely: Callable[[Callable[[], object]], None]) -> None:
    for _ in range(examples):
        text = mutated(chance, _CORPUS).decode(errors="replace")
        timely(partial(_loads, text))
