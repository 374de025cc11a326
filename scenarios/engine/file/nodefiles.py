"""Reads and checks the files that a lab file puts on nodes (`files`), before the lab starts."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from kubewire.components.networks import registry
from kubewire.scenarios.engine.file.document import Document, KeyPath, SpecError, read_manifests
from kubewire.topologies.plan import PRIVATE_DIRECTORIES

#: Links to folders in /run.
_LINKS = ("/var/run", "/var/lock")
#: Folders of the machine and of the kernel, which are read-only in a lab.
_READ_ONLY = (
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr",
    "/proc",
    "/sys",
    "/dev",
)


@dataclass(frozen=True)
class File:
    """A file on the nodes whose names match a pattern. source: a file of this machine from which
    the content is read (`from`)."""

    content: str = ""
    source: str = field(default="", metadata={"key": "from"})
    nodes: str = "*"
    mode: str = "0644"

    def as_dict(self) -> dict[str, Any]:
        """The form in a lab file, with the content instead of its source."""
        return {"content": self.content, "nodes": self.nodes, "mode": self.mode}


def of(entry: Any) -> File:
    """The File of a value in a lab file. With a source, it has no content yet; read() adds it."""
    if isinstance(entry, str):
        return File(entry)
    return File(**{("source" if key == "from" else key): value for key, value in entry.items()})


def read(document: Document) -> dict[str, Any]:
    """The mapping `files`, with each source replaced by its content. Raises SpecError."""
    entries = document.data.get("files", {})
    return {path: _read(document, path, entry) for path, entry in entries.items()}


def _read(document: Document, path: str, entry: Any) -> Any:
    where: KeyPath = ("files", path)
    if isinstance(entry, str):
        return entry
    if ("content" in entry) == ("from" in entry):
        problem = "needs either content or from, a file of this machine"
        raise SpecError([document.problem(where, problem)])
    if "from" not in entry:
        return entry
    source = Path(document.where).parent / entry["from"]
    try:
        content = read_manifests(source)
    except SpecError as error:
        text = f"{error}; use share to show a lab files that are not text"
        raise SpecError([document.problem((*where, "from"), text)]) from error
    except (OSError, ValueError) as error:
        # A path with a null character raises ValueError.
        why = error.strerror if isinstance(error, OSError) else error
        text = f"{source}: {why}; a path is relative to the lab file's folder"
        raise SpecError([document.problem((*where, "from"), text)]) from error
    return {"content": content, **{key: value for key, value in entry.items() if key != "from"}}


def problems(
    files: Sequence[tuple[str, File]],
    nodes: Sequence[str],
) -> Iterator[tuple[KeyPath, str]]:
    """Yields (key path, problem) for files that a lab with these nodes cannot have."""
    for path, file in files:
        where: KeyPath = ("files", path)
        if not PurePosixPath(path).is_absolute() or ".." in path.split("/") or path.endswith("/"):
            yield where, "is not the absolute path of a file, such as /etc/motd"
        elif any(_is_below(path, folder) for folder in _READ_ONLY):
            yield where, f"is in a folder that is read-only in a lab: {', '.join(_READ_ONLY)}"
        elif any(_is_below(path, folder) for folder in _LINKS):
            yield where, "is behind a symbolic link; write the path as /run/..."
        matching = chosen(file.nodes, nodes)
        if not matching:
            yield (*where, "nodes"), f"{file.nodes} matches no node; there are {', '.join(nodes)}"
        elif len(matching) < len(nodes) and not _is_private(path):
            private = ", ".join(private_directories())
            yield (
                (*where, "nodes"),
                f"a file outside of {private} is the same on all hosts; leave nodes out",
            )


def _is_private(path: str) -> bool:
    return any(_is_below(path, folder) for folder in private_directories())


def private_directories() -> list[str]:
    """The directories that are separate on each node: those of every lab, and those of the pod
    networks."""
    return list(dict.fromkeys((*PRIVATE_DIRECTORIES, *registry.directories())))


def chosen(pattern: str, nodes: Sequence[str]) -> list[str]:
    """The nodes whose names match a shell pattern (glob(7))."""
    return [node for node in nodes if fnmatch.fnmatchcase(node, pattern)]


def _is_below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def as_dict(files: Sequence[tuple[str, File]]) -> Mapping[str, Any]:
    return {path: file.as_dict() for path, file in files}
