"""The description of a lab file, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from kubewire.components.base import sources
from kubewire.components.networks import registry
from kubewire.components.policy import registry as engines
from kubewire.scenarios.engine.file import generate, reference
from kubewire.scenarios.engine.file.keys import KEYS
from kubewire.scenarios.engine.file.spec import LabSpec


@pytest.mark.parametrize("path", generate.files(), ids=lambda path: path.name)
def test_a_generated_file_is_what_the_generator_makes(path: Path) -> None:
    wrong = f"{path.relative_to(sources.FOLDER)} differs: python -m kubewire.scenarios.engine.file.generate writes it"
    assert path.read_text() == generate.files()[path], wrong


def test_the_table_has_the_keys_of_the_dataclasses_and_no_others() -> None:
    of_addons = {f"cni.{setting.name}" for setting in registry.settings()}
    of_addons |= {f"policy.{setting.name}" for setting in engines.settings()}
    assert [entry.path for entry in reference.entries() if entry.path not in of_addons] == list(KEYS)


def test_every_key_says_in_a_sentence_what_it_does() -> None:
    assert [entry.path for entry in reference.entries() if not entry.key.does.endswith(".")] == []


def test_the_schema_is_one_and_describes_every_key_to_an_editor() -> None:
    schema = reference.schema()
    Draft202012Validator.check_schema(schema)
    properties = schema["$defs"]["lab"]["properties"]
    assert properties["network"]["properties"]["clusterCIDR"]["description"] == "The pods' range."
    assert properties["share"]["items"]["anyOf"][1]["required"] == ["path"]


def test_the_example_reads_as_the_defaults() -> None:
    data = yaml.safe_load(reference.example())
    del data["images"]  # it shows one, for none would say nothing
    assert LabSpec.parse(data) == LabSpec(hostUsers=False)
