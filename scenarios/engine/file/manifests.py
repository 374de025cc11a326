"""Reads and checks the manifests in a lab file (files, folders and objects), before the lab
starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubewire.scenarios.engine.file.check import shown
from kubewire.scenarios.engine.file.document import (
    Document,
    KeyPath,
    SpecError,
    documents,
    read_manifests,
)
from kubewire.scenarios.engine.file.jsonobject import JsonObject

#: The suffixes of files that kubectl reads in a folder.
_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Manifests:
    """Objects in the order in which they are applied. source: the file, or the key in the lab file,
    that contains them."""

    source: str
    objects: tuple[JsonObject, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The form in a lab file that stands for a path and contains the objects of its file."""
        return {"file": self.source, "objects": [one.data for one in self.objects]}


def of(entry: Any, number: int) -> Iterator[Manifests]:
    """The manifests of an item in a lab file. A path has no objects yet; read() adds them."""
    if isinstance(entry, str):
        yield Manifests(entry)
    elif "objects" in entry and "kind" not in entry:
        yield Manifests(entry["file"], tuple(map(JsonObject.of, entry["objects"])))
    else:
        yield Manifests(f"manifests[{number}]", (JsonObject.of(entry),))


def read(document: Document) -> list[Any]:
    """The items of `manifests`, with each path replaced by the objects of its files. Raises
    SpecError."""
    found: list[Any] = []
    for number, entry in enumerate(document.data.get("manifests", ())):
        path: KeyPath = ("manifests", number)
        if isinstance(entry, str):
            found += [one.as_dict() for one in _of_path(document, path, entry)]
            continue
        for one in of(entry, number):
            for obj in one.objects:
                if problem := object_problem(obj.data):
                    raise SpecError([document.problem(path, problem)])
            found.append(one.as_dict())
    return found


def _of_path(document: Document, path: KeyPath, name: str) -> Iterator[Manifests]:
    """The manifests of a file, or of each file in a folder, in the order of their names."""
    place = Path(document.where).parent / name
    if not place.is_dir():
        yield _of_file(document, path, place, name)
        return
    inside = sorted(file for file in place.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not inside:
        text = f"the folder {place} has no file whose name ends with {', '.join(_SUFFIXES)}"
        raise SpecError([document.problem(path, text)])
    for file in inside:
        yield _of_file(document, path, file, f"{name.rstrip('/')}/{file.name}")


def _of_file(document: Document, path: KeyPath, file: Path, name: str) -> Manifests:
    try:
        given = documents(read_manifests(file), str(file))
    except SpecError as error:
        raise SpecError([document.problem(path, problem) for problem in error.problems]) from error
    except (OSError, ValueError) as error:
        # A path with a null character raises ValueError.
        why = error.strerror if isinstance(error, OSError) else error
        text = f"{file}: {why}; a path is relative to the lab file's folder"
        raise SpecError([document.problem(path, text)]) from error
    objects = []
    for number, item in enumerate(given, 1):
        for obj in _items(item):
            if problem := object_problem(obj):
                raise SpecError([document.problem(path, f"{file}: document {number}: {problem}")])
            objects.append(JsonObject.of(obj))
    if not objects:
        raise SpecError([document.problem(path, f"{file} has no object")])
    return Manifests(name, tuple(objects))


def _items(item: Any) -> list[Any]:
    """The objects of a document: a v1 List stands for its items, an empty document for none."""
    if isinstance(item, Mapping) and item.get("kind") == "List":
        items = item.get("items")
        if isinstance(items, list):
            return list(items)
    return [] if item is None else [item]


def object_problem(item: Any) -> str:
    """Why an item is not a Kubernetes object that can be applied; "" if it is one."""
    if not isinstance(item, dict):
        return f"must be a mapping with apiVersion, kind and metadata, not {shown(item)}"
    if not isinstance(item.get("metadata", {}), dict):
        return f"metadata must be a mapping, not {shown(item['metadata'])}"
    missing = [key for key in ("apiVersion", "kind") if not item.get(key)]
    if not item.get("metadata", {}).get("name"):
        missing.append("metadata.name")
    return f"{', '.join(missing)} is missing" if missing else ""
