"""A verb describes itself: schema, reference, short form, sources and problems come from its dataclass."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import pytest

from kubewire.scenarios.engine import verbs
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.loader import load
from kubewire.scenarios.engine.verbs import generate
from kubewire.scenarios.engine.verbs.arguments import Pattern, arguments
from kubewire.scenarios.engine.verbs.base import Look
from kubewire.scenarios.engine.verbs.commands import Exec
from kubewire.scenarios.engine.verbs.packets import CHECKS, Headers, OuterHeaders

README = Path(__file__).parents[2] / "scenarios/engine/README.md"


@pytest.mark.parametrize("file", generate.generated(), ids=lambda file: file.name)
def test_a_generated_file_is_what_the_verbs_generate_now(file):
    assert file.read_text() == generate.generated()[file]


@dataclass(frozen=True)
class Colour(Look):
    """The colour of a packet."""

    SHORT_FORM: ClassVar = "is"
    SOURCE: ClassVar = "none"
    shade_of: Annotated[Pattern, "a regular expression"]


@pytest.fixture
def colour(monkeypatch):
    monkeypatch.setitem(verbs.VERBS, "colour", Colour)


def test_a_new_verb_is_in_the_schema_and_in_the_reference(colour):
    definitions = generate.schema_of(json.loads(generate.SCHEMA.read_text()))["$defs"]
    assert definitions["expectation"]["properties"]["colour"] == {"$ref": "#/$defs/colour"}
    assert definitions["colour"]["anyOf"][1]["required"] == ["shadeOf"]
    section = generate.reference().partition("\n## colour\n")[2]
    assert "The colour of a packet." in section
    assert "It has no `from`." in section
    assert "| `shadeOf` (required) | text | a regular expression |" in section


def test_a_verb_that_is_gone_leaves_nothing_in_the_schema(colour, monkeypatch):
    with_it = generate.schema_of(json.loads(generate.SCHEMA.read_text()))
    monkeypatch.delitem(verbs.VERBS, "colour")
    assert generate.schema_of(with_it) == json.loads(generate.SCHEMA.read_text())


@pytest.mark.parametrize(
    ("expectation", "said"),
    [
        (
            "{from: a, rules: {walk: {chain: C}, reaches: '('}}",
            "expect.rules.reaches: '(' is not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        ("{events: {message: '['}}", "expect.events.message: '[' is not a regular expression"),
        ("{from: a, series: {x: a, y: b, growth: {}}}", "expect.series: needs either program or command"),
        ("{from: a, http: {status: 200}}", "expect.http: needs either url, or to with port and path"),
        ("{from: a, packets: {on: 'a:b'}}", "expect.from: packets has no source; remove from"),
        ("{packets: {on: 'a:b', nat: none}}", "expect.packets.nat: needs path"),
        ("{from: a, ping: {}}", "expect.ping: to is missing"),
        ("{from: a, packets: {on: 'a:b', match: {flag: S}}}", "match.flag: unknown key (did you mean flags?)"),
    ],
)
def test_what_the_dataclass_forbids_is_named_with_its_key(tmp_path, expectation, said):
    file = tmp_path / "x.scenario.yaml"
    file.write_text(f"name: x\ntitle: t\nsteps: [{{expect: {expectation}}}]\n")
    with pytest.raises(SpecError) as error:
        load(file)
    assert said in str(error.value)


@pytest.mark.parametrize("exit_code", [3, "any", "nonzero"])
def test_an_exit_code_is_a_number_or_a_word(exit_code):
    assert Exec.read({"command": "false", "exit": exit_code}).exit == exit_code


def test_every_header_of_a_packet_can_be_checked():
    assert {*arguments(Headers), *arguments(OuterHeaders)} == set(CHECKS)


def test_the_example_of_another_verb_in_the_readme_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    namespace = {"__name__": "example"}
    exec(compile(example, "example", "exec", dont_inherit=True), namespace)
