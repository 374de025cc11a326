"""Policies and workloads from files, so that questions can be answered without a cluster.

A workload (Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob)
stands for one pod with its name, the labels and the containers of its template. Pods get made-up
addresses from 192.0.2.0/24 and on, in the order of the files, so that two runs say the same.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubewire.components.base import yamlfile

KubeObject = Mapping[str, Any]

_SUFFIXES = (".yaml", ".yml", ".json")
#: Where the template of a workload's pods is.
_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
#: The first address of a pod (TEST-NET-1, RFC 5737).
_FIRST = ipaddress.ip_address("192.0.2.1")


class FileError(ValueError):
    """A file that cannot be read, or is no manifest: "FILE: what is wrong"."""


@dataclass(frozen=True)
class Found:
    """An object, and the file that it is from ("-" for the standard input). node, lines: the object
    as a tree that knows its lines, and the lines of the file; None and empty if it is not known how
    it is written."""

    obj: KubeObject
    file: str
    node: Any = field(default=None, compare=False, repr=False)
    lines: Sequence[str] = field(default=(), compare=False, repr=False)

    @property
    def place(self) -> str:
        """`FILE:LINE`."""
        line = self.line_of("")
        return f"{self.file}:{line}" if line else self.file

    def line_of(self, path: str) -> int:
        """The line of a field such as `spec.ingress[0].from[1]`, or of the part of its path that
        exists; 0 if the lines are not known."""
        if self.node is None:
            return 0
        node, line = self.node, int(self.node.start_mark.line)
        for word in re.findall(r"[^.\[\]]+", path):
            found = _inside(node, word)
            if found is None:
                break
            node, line = found
        return line + 1

    def text_at(self, line: int) -> str:
        """The text of a line, "" for one that is not known."""
        return self.lines[line - 1].rstrip() if 0 < line <= len(self.lines) else ""


def _inside(node: Any, word: str) -> tuple[Any, int] | None:
    """What a mapping has at a key, or a sequence at an index, with its line from 0."""
    if isinstance(node.value, list) and word.isdigit() and int(word) < len(node.value):
        inner = node.value[int(word)]
        if not isinstance(inner, tuple):
            return inner, int(inner.start_mark.line)
    if isinstance(node.value, list):
        for one in node.value:
            if isinstance(one, tuple) and one[0].value == word:
                return one[1], int(one[0].start_mark.line)
    return None


def read(paths: Iterable[str], standard_input: str = "") -> list[Found]:
    """The objects of files and folders; of a folder all files that end with .yaml, .yml or .json,
    those of inner folders, too. Raises FileError."""
    found = [one for path in paths for one in _of_path(path, standard_input)]
    if not found:
        raise FileError(f"{', '.join(paths)}: no Kubernetes object in it")
    return found


def _of_path(path: str, standard_input: str) -> Iterator[Found]:
    if path == "-":
        yield from objects_of(standard_input, "-")
        return
    place = Path(path)
    if place.is_dir():
        for file in sorted(place.rglob("*")):
            if file.suffix in _SUFFIXES and file.is_file():
                yield from _of_file(file)
        return
    yield from _of_file(place)


def _of_file(file: Path) -> Iterator[Found]:
    try:
        text = yamlfile.read_text(file)
    except OSError as error:
        raise FileError(f"{file}: {error.strerror}") from error
    except yamlfile.YamlFileError as error:
        raise FileError(str(error)) from error
    yield from objects_of(text, str(file))


def objects_of(text: str, file: str) -> Iterator[Found]:
    """The objects of a text; a list stands for its items. file: its name. Raises FileError."""
    try:
        nodes = yamlfile.compose_all(text, file)
        documents = [yamlfile.construct(node, file) for node in nodes]
    except yamlfile.YamlFileError as error:
        raise FileError(str(error)) from error
    lines = text.splitlines()
    for node, document in zip(nodes, documents, strict=True):
        if document is None:
            continue
        if not isinstance(document, dict) or not document.get("kind"):
            raise FileError(f"{file}: a document is no Kubernetes object: it has no kind")
        items = document.get("items") if str(document["kind"]).endswith("List") else None
        for number, obj in enumerate([document] if items is None else items):
            metadata = obj.get("metadata")
            if not isinstance(metadata, dict) or not (
                metadata.get("name") or metadata.get("generateName")
            ):
                raise FileError(f"{file}: {obj.get('kind')}: metadata.name is required")
            yield Found(obj, file, node if items is None else _item(node, number), lines)


def _item(node: Any, number: int) -> Any:
    """An item of a list's tree."""
    items = _inside(node, "items")
    found = None if items is None else _inside(items[0], str(number))
    return None if found is None else found[0]


def pods(found: Sequence[Found]) -> list[KubeObject]:
    """The pods of files, with addresses; those that have one keep it."""
    templates = (one.obj for one in found)
    made = [pod for obj in templates if (pod := _pod(obj)) is not None]
    return [_running(pod, number) for number, pod in enumerate(made)]


def _pod(obj: KubeObject) -> KubeObject | None:
    metadata = obj["metadata"]
    name = metadata.get("name") or f"{metadata['generateName']}0"
    place = {"name": name, "namespace": metadata.get("namespace") or "default"}
    kind = str(obj["kind"])
    if kind == "Pod":
        return {**obj, "metadata": {**metadata, **place}}
    template: Any = obj if kind in _TEMPLATES else None
    for key in _TEMPLATES.get(kind, ()):
        template = (template or {}).get(key)
    if not isinstance(template, dict):
        return None
    labels = (template.get("metadata") or {}).get("labels") or {}
    spec = template.get("spec") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**place, "labels": labels},
        "spec": spec,
    }


def _running(pod: KubeObject, number: int) -> KubeObject:
    status = pod.get("status") or {}
    if status.get("podIP") or status.get("podIPs"):
        return pod
    address = str(_FIRST + number)
    return {**pod, "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
