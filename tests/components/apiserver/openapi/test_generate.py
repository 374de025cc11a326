"""The types of the API: how they are made from Go, and that the two files of them agree."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import orjson
import pytest

from kubewire.components.apiserver.http import protobuf, protobuf_writer
from kubewire.components.apiserver.http.documents import VERSION
from kubewire.components.apiserver.openapi import generate
from kubewire.components.apiserver.openapi.models import RELEASE, all_models

CORE = '''
package v1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Color is a name for a string.
type Color string

const (
	Red Color = "Red"
)

// Amounts has a name, too.
type Amounts map[Color]resource.Quantity

type Nothing struct{}

// Shape is embedded.
type Shape struct {
	// Sides is a pointer.
	// +optional
	Sides *int64 `json:"sides,omitempty" protobuf:"varint,1,opt,name=sides"`
	Blob []byte `json:"blob,omitempty" protobuf:"bytes,2,opt,name=blob"`
}

type Thing struct {
	metav1.TypeMeta `json:",inline"`
	// Standard object's metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	Shape `json:",inline" protobuf:"bytes,2,opt,name=shape"`
	// +listType=map
	// +listMapKey=name
	// +listMapKey=color
	Parts []Part `json:"parts" patchStrategy:"merge" patchMergeKey:"name" protobuf:"bytes,3,rep,name=parts"`
	// +listType=set
	Colors []Color `json:"colors,omitempty" protobuf:"bytes,4,rep,name=colors,casttype=Color"`
	// +listType=set
	Names []string `json:"names,omitempty" patchStrategy:"merge" protobuf:"bytes,7,rep,name=names"`
	Amounts Amounts `json:"amounts,omitempty" protobuf:"bytes,5,rep,name=amounts"`
	// +required
	Nothing *Nothing `json:"nothing,omitempty" protobuf:"bytes,6,opt,name=nothing"`
	hidden int
	Ignored string `json:"-"`
}

type Part struct {
	Name string `json:"name" protobuf:"bytes,1,opt,name=name"`
	Color Color `json:"color,omitempty" protobuf:"bytes,2,opt,name=color"`
	// +patchMergeKey=x
	Port *intstr.IntOrString `json:"port,omitempty" protobuf:"bytes,3,opt,name=port"`
	Since metav1.MicroTime `json:"since,omitempty" protobuf:"bytes,4,opt,name=since"`
}
'''  # fmt: skip
META = '''
package v1

type TypeMeta struct {
	Kind string `json:"kind,omitempty" protobuf:"bytes,1,opt,name=kind"`
	APIVersion string `json:"apiVersion,omitempty" protobuf:"bytes,2,opt,name=apiVersion"`
}

type ObjectMeta struct {
	Name string `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"`
}
'''  # fmt: skip
PACKAGES = {"api": ("core/v1", CORE), "apimachinery": ("pkg/apis/meta/v1", META)}


def modules(folder: Path, version: str = f"v0.{RELEASE.removeprefix('1.')}") -> list[Path]:
    """Zip files of two small modules."""
    written = []
    for module, (package, source) in PACKAGES.items():
        path = folder / f"{module}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"k8s.io/{module}@{version}/{package}/types.go", source)
            archive.writestr(f"k8s.io/{module}@{version}/{package}/types_test.go", "type Tested struct {}\n")
            archive.writestr(f"k8s.io/{module}@{version}/README.md", "type Read string\n")
        written.append(path)
    return written


@pytest.fixture(autouse=True)
def one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "ROOTS", {"k8s.io/api/core/v1": ("", "Thing")})
    monkeypatch.setattr(generate, "_MORE_MODELS", ())
    monkeypatch.setattr(generate, "_MORE_MESSAGES", ())


@pytest.fixture
def types(tmp_path: Path) -> generate.Types:
    return generate.read_types(modules(tmp_path))


def test_models_are_what_json_has(types: generate.Types) -> None:
    core = "io.k8s.api.core.v1."
    assert json.loads(generate.models_text(types)) == {
        core + "Nothing": {"fields": {}},
        core + "Part": {
            "fields": {"color": "s", "name": "s", "port": "x", "since": "u"},
            "required": ["name"],
            "named": {"color": "v1.Color"},
            "always": ["name", "since"],
            "pointers": ["port"],
        },
        core + "Thing": {
            "fields": {
                "amounts": "{q", "apiVersion": "s", "blob": "y", "colors": "[s", "kind": "s",
                "names": "[s", "metadata": "#io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
                "nothing": f"#{core}Nothing", "parts": f"[#{core}Part", "sides": "l",
            },
            "required": ["nothing", "parts"],
            "patch": {"names": ["merge", ""], "parts": ["merge", "name"]},
            "keys": {"colors": [], "parts": ["name", "color"]},
            "named": {"colors": "v1.Color"},
            "always": ["metadata", "parts"],
            "pointers": ["sides"],
            "kind": ["", "v1", "Thing"],
        },
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {"fields": {"name": "s"}},
    }  # fmt: skip


def test_messages_are_what_protobuf_has(types: generate.Types) -> None:
    assert json.loads(generate.numbers_text(types)) == {
        "core.v1.Nothing": {},
        "core.v1.Part": {"1": "name string", "2": "color string", "3": "port *IntOrString", "4": "since meta.v1.MicroTime"},
        "core.v1.Shape": {"1": "sides *int", "2": "blob bytes"},
        "core.v1.Thing": {
            "1": "metadata meta.v1.ObjectMeta", "2": "shape inline core.v1.Shape", "3": "parts list core.v1.Part",
            "4": "colors list string", "5": "amounts map Quantity", "6": "nothing core.v1.Nothing",
            "7": "names list string",
        },
        "meta.v1.ObjectMeta": {"1": "name string"},
    }  # fmt: skip


def test_a_module_of_another_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=rf"types.go is not of v0.{RELEASE[2:]}, as models.py says"):
        generate.read_types(modules(tmp_path, "v0.35.0"))


def test_a_type_that_is_not_known_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "apimachinery", ("pkg/apis/meta/v1", META.replace("ObjectMeta", "OtherMeta")))
    with pytest.raises(KeyError, match="ObjectMeta"):
        generate.models_text(generate.read_types(modules(tmp_path)))


#: The letters of models.py and the types of http/protobuf.py for the same values.
SAME = {
    "s": {"string", "meta.v1.Duration"}, "b": {"bool"}, "i": {"int"}, "l": {"int"}, "n": {"double"}, "y": {"bytes"}, "t": {"meta.v1.Time"},
    "u": {"meta.v1.MicroTime"}, "q": {"Quantity"}, "x": {"IntOrString"},
    "o": {"meta.v1.FieldsV1", "runtime.RawExtension", "apiextensions.v1.JSON", "apiextensions.v1.JSONSchemaPropsOrBool",
          "apiextensions.v1.JSONSchemaPropsOrArray", "apiextensions.v1.JSONSchemaPropsOrStringArray"},
}  # fmt: skip


def message_of(definition: str) -> str:
    """core.v1.Pod of io.k8s.api.core.v1.Pod."""
    return ".".join(definition.split(".")[-3:])


def agree(letter: str, kind: str) -> bool:
    kind = kind.lstrip("*")
    if letter.startswith("{["):  # a list in a map is a message
        return kind.startswith("map ") and kind.endswith(".ExtraValue")
    if letter[0] in "[{":
        start = "list " if letter[0] == "[" else "map "
        return kind.startswith(start) and agree(letter[1:], kind.removeprefix(start))
    return kind == message_of(letter[1:]) if letter[0] == "#" else kind in SAME[letter]


def json_fields(message: str) -> dict[str, str]:
    """The fields of a message that JSON has, also those of embedded messages."""
    found: dict[str, str] = {}
    for name, kind in protobuf.messages()[message].values():
        if kind.startswith("inline "):
            found |= json_fields(kind.removeprefix("inline "))
        else:
            found[name] = kind
    return found


def test_every_field_of_the_models_has_its_number_in_protobuf_and_the_reverse() -> None:
    differing = []
    for name, model in all_models().items():
        # kind and apiVersion stand in the envelope, not in the message.
        own = set() if model.kind is None and "metadata" not in model.fields else {"kind", "apiVersion"}
        in_json = {key: letter for key, letter in model.fields.items() if key not in own}
        in_protobuf = json_fields(message_of(name))
        differing += [f"{name}: {key}" for key in in_json.keys() ^ in_protobuf.keys()]
        differing += [
            f"{name}: {key} is {letter} and {in_protobuf[key]}"
            for key, letter in in_json.items()
            if key in in_protobuf and not agree(letter, in_protobuf[key])
        ]
    assert not differing


def test_every_message_is_a_model_or_part_of_one() -> None:
    table = protobuf.messages()
    of_models = {message_of(name) for name in all_models()}
    embedded = {kind.removeprefix("inline ") for fields in table.values() for _, kind in fields.values()}
    assert {name for name in table if name not in of_models | embedded and name not in SAME["o"]} == {
        "runtime.Unknown",
        "meta.v1.PartialObjectMetadata",
        "meta.v1.PartialObjectMetadataList",
    }


def test_each_message_can_be_read() -> None:
    """Every type that the table names is a scalar, a message of the table, or has a decoder of its own."""
    table = protobuf.messages()
    scalars = {"string", "bytes", "bool", "int", "double"}
    named = {re.sub(r"^(\*|list |map |inline )", "", kind) for fields in table.values() for _, kind in fields.values()}
    assert named - scalars - table.keys() - protobuf._SPECIAL.keys() == set()
    assert named - scalars - table.keys() - protobuf_writer._SPECIAL.keys() == set()


def test_the_server_says_the_release_of_its_types() -> None:
    assert VERSION["gitVersion"] == f"v{RELEASE}+kubewire"
    assert f"{VERSION['major']}.{VERSION['minor']}." in RELEASE


def test_the_generated_files_are_written_as_the_generator_writes_them() -> None:
    """Their source is not in the tree, but a change by hand in another form shows."""
    for path in (generate.MODELS, generate.NUMBERS):
        assert path.read_text() == generate._lines(orjson.loads(path.read_bytes()))
