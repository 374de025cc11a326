"""What the machine's side hands to the sandbox: one JSON document, and sockets by descriptor."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubewire.lab.sandbox.contents import Contents, Shared


@dataclass(frozen=True)
class Doors:
    """Listening sockets that the machine's side has bound; all that leads into a lab.

    outer: TCP on the machine's loopback, which stays outside (door.py). api, control, runtime: unix sockets of
    the state directory; api is what outer leads to.
    """

    outer: socket.socket
    api: socket.socket
    control: socket.socket
    runtime: socket.socket

    def descriptors(self) -> list[int]:
        """Of the sockets, in the order of the fields."""
        return [self.outer.fileno(), self.api.fileno(), self.control.fileno(), self.runtime.fileno()]


@dataclass(frozen=True)
class Request:
    """A lab to be made. spec: a lab file as plain data. attached: it ends with its starter.

    host_users: the lab has no user namespace of its own.
    """

    name: str
    spec: Mapping[str, Any]
    contents: Contents
    doors: Doors
    attached: bool = False
    host_users: bool = False

    def text(self) -> bytes:
        """The document; descriptors are those of this process and of the one that inherits them."""
        contents = self.contents
        document = {
            "name": self.name,
            "spec": self.spec,
            "attached": self.attached,
            "host_users": self.host_users,
            "doors": self.doors.descriptors(),
            "programs": [str(path) for path in contents.programs],
            "logs": str(contents.logs),
            "shared": [[str(entry.path), entry.read_only] for entry in contents.shared],
        }
        return json.dumps(document).encode()

    @classmethod
    def parse(cls, text: bytes) -> Request:
        """In the process that has inherited the descriptors."""
        document = json.loads(text)
        contents = Contents(
            programs=tuple(Path(path) for path in document["programs"]),
            logs=Path(document["logs"]),
            shared=tuple(Shared(Path(path), read_only) for path, read_only in document["shared"]),
        )
        doors = Doors(*(socket.socket(fileno=number) for number in document["doors"]))
        return cls(
            document["name"],
            document["spec"],
            contents,
            doors,
            attached=document["attached"],
            host_users=document["host_users"],
        )


@contextmanager
def as_file(text: bytes) -> Iterator[int]:
    """A descriptor from which text can be read once, by a child that inherits it."""
    descriptor = os.memfd_create("kubewire-request")
    try:
        os.write(descriptor, text)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
