"""Manifests that a lab file names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubewire.scenarios.engine.file.spec import LabSpec, SpecError

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "web.yaml").write_text(POD % "a" + "---\n" + POD % "b" + "---\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/2.yml").write_text(POD % "d")
    (tmp_path / "more/1.json").write_text(f'{{"kind": "List", "apiVersion": "v1", "items": [{object_named("c")}]}}')
    (tmp_path / "more/README").write_text("no manifest")
    return tmp_path


def object_named(name: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}})


def load(folder: Path, text: str) -> LabSpec:
    (folder / "lab.yaml").write_text(text)
    return LabSpec.load(folder / "lab.yaml")


def test_files_folders_and_objects_are_read_in_order_relative_to_the_lab_file(folder: Path) -> None:
    spec = load(folder, f"manifests: [web.yaml, more, {object_named('e')}]\n")
    named = [(one.source, obj.data["metadata"]["name"]) for one in spec.manifests for obj in one.objects]
    assert named == [
        ("web.yaml", "a"),
        ("web.yaml", "b"),
        ("more/1.json", "c"),
        ("more/2.yml", "d"),
        ("manifests[2]", "e"),
    ]


def test_a_spec_written_out_needs_the_files_no_more(folder: Path) -> None:
    spec = load(folder, "manifests: [web.yaml, more]\n")
    (folder / "web.yaml").unlink()
    assert LabSpec.parse(spec.as_dict()) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "manifests:\n- web.yaml\n- nowhere.yaml\n",
            "lab.yaml:3: manifests[1]: FOLDER/nowhere.yaml: No such file or dir",
        ),
        (
            "manifests: [empty]\n",
            "lab.yaml:1: manifests[0]: the folder FOLDER/empty has no file whose name ends with .ya",
        ),
        ("manifests: [bad.yaml]\n", "manifests[0]: FOLDER/bad.yaml: document 2: kind is missing"),
        ("manifests: [nothing.yaml]\n", "manifests[0]: FOLDER/nothing.yaml has no object"),
        ("manifests: [broken.yaml]\n", "manifests[0]: FOLDER/broken.yaml:2: not YAML"),
        ("manifests: [{kind: Pod, metadata: {name: x}}]\n", "lab.yaml:1: manifests[0]: apiVersion is missing"),
        ("manifests: [3]\n", "manifests[0]: must be a text or a mapping, not 3"),
        ("kubernetes: false\nmanifests: [web.yaml]\n", "lab.yaml:2: manifests: need an API, and kubernetes: false"),
    ],
)
def test_what_cannot_be_applied_is_named_with_its_file(folder: Path, text: str, said: str) -> None:
    (folder / "empty").mkdir()
    (folder / "bad.yaml").write_text(POD % "a" + "---\napiVersion: v1\nmetadata: {name: x}\n")
    (folder / "nothing.yaml").write_text("# none\n")
    (folder / "broken.yaml").write_text("{\n")
    with pytest.raises(SpecError) as error:
        load(folder, text)
    assert said in str(error.value).replace(str(folder), "FOLDER").replace("FOLDER/lab.yaml:", "lab.yaml:")
