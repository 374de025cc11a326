"""Files that a lab file puts on nodes: read and looked at before the lab starts."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from kubewire.components.networks import registry
from kubewire.scenarios.engine.file.document import Document, KeyPath, SpecError, read_manifests
from kubewire.topologies.plan import PRIVATE_DIRECTORIES

#: Links to /run and below.
_LINKS = ("/var/run", "/var/lock")
#: What a lab has of this machine, and what the kernel shows: nothing can be written there.
_READ_ONLY = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/proc", "/sys", "/dev")


@dataclass(frozen=True)
class File:
    """content of a file on the nodes whose names match; source: where it is from, where a file of this machine."""

    content: str = ""
    source: str = field(default="", metadata={"key": "from"})
    nodes: str = "*"
    mode: str = "0644"

    def as_dict(self) -> dict[str, Any]:
        """The form of a lab file, with the content in place of its source."""
        return {"content": self.content, "nodes": self.nodes, "mode": self.mode}


def of(entry: Any) -> File:
    """From a value of a lab file. Of a source there is no content yet (see read)."""
    if isinstance(entry, str):
        return File(entry)
    return File(**{("source" if key == "from" else key): value for key, value in entry.items()})


def read(document: Document) -> dict[str, Any]:
    """The mapping `files`, with the content of each source. Raises SpecError."""
    return {path: _read(document, path, entry) for path, entry in document.data.get("files", {}).items()}


def _read(document: Document, path: str, entry: Any) -> Any:
    where: KeyPath = ("files", path)
    if isinstance(entry, str):
        return entry
    if ("content" in entry) == ("from" in entry):
        raise SpecError([document.problem(where, "needs either content or from, a file of this machine")])
    if "from" not in entry:
        return entry
    source = Path(document.where).parent / entry["from"]
    try:
        content = read_manifests(source)
    except SpecError as error:
        text = f"{error}; what is no text, a lab can see by share"
        raise SpecError([document.problem((*where, "from"), text)]) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error  # a path with a null character is a ValueError
        text = f"{source}: {why}; a path is relative to the lab file's folder"
        raise SpecError([document.problem((*where, "from"), text)]) from error
    return {"content": content, **{key: value for key, value in entry.items() if key != "from"}}


def problems(files: Sequence[tuple[str, File]], nodes: Sequence[str]) -> Iterator[tuple[KeyPath, str]]:
    """What cannot be in a lab with these nodes."""
    for path, file in files:
        where: KeyPath = ("files", path)
        if not PurePosixPath(path).is_absolute() or ".." in path.split("/") or path.endswith("/"):
            yield where, "is not the absolute path of a file, such as /etc/motd"
        elif any(_is_below(path, folder) for folder in _READ_ONLY):
            yield where, f"cannot be written in a lab; read-only are {', '.join(_READ_ONLY)}"
        elif any(_is_below(path, folder) for folder in _LINKS):
            yield where, "lies behind a link; write the path as /run/..."
        matching = chosen(file.nodes, nodes)
        if not matching:
            yield (*where, "nodes"), f"{file.nodes} matches no node; there are {', '.join(nodes)}"
        elif len(matching) < len(nodes) and not any(_is_below(path, folder) for folder in private_directories()):
            private = ", ".join(private_directories())
            yield (*where, "nodes"), f"what lies outside of {private} is the same on all hosts; leave nodes out"


def private_directories() -> list[str]:
    """The directories that each node has for itself: those of every lab, and those of the pod networks."""
    return list(dict.fromkeys((*PRIVATE_DIRECTORIES, *registry.directories())))


def chosen(pattern: str, nodes: Sequence[str]) -> list[str]:
    """The nodes whose names match, as a shell matches names of files."""
    return [node for node in nodes if fnmatch.fnmatchcase(node, pattern)]


def _is_below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def as_dict(files: Sequence[tuple[str, File]]) -> Mapping[str, Any]:
    return {path: file.as_dict() for path, file in files}
