"""The request by which the machine's side tells the sandbox what to build: one JSON document, and
listening sockets as inherited descriptors."""

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
    """The listening sockets that lead into a lab; there are no other ways in. The machine's side
    binds them.

    outer: TCP on the machine's loopback; it stays outside, in the door (door.py).
    api, control, runtime: unix sockets in the state directory. The door connects outer to api.
    """

    outer: socket.socket
    api: socket.socket
    control: socket.socket
    runtime: socket.socket

    def descriptors(self) -> list[int]:
        """The sockets' descriptors, in the order of the fields."""
        return [
            self.outer.fileno(),
            self.api.fileno(),
            self.control.fileno(),
            self.runtime.fileno(),
        ]


@dataclass(frozen=True)
class Request:
    """A lab to be made.

    spec: the lab file as plain data.
    attached: the lab ends with the process that starts it.
    host_users: the lab gets no user namespace of its own (`hostUsers: true`).
    """

    name: str
    spec: Mapping[str, Any]
    contents: Contents
    doors: Doors
    attached: bool = False
    host_users: bool = False

    def text(self) -> bytes:
        """The document. It holds descriptor numbers, which are the same in this process and in the
        one that inherits them."""
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
        """Read the document, in the process that has inherited the descriptors."""
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
    """Open a descriptor from which a child that inherits it can read text, once."""
    descriptor = os.memfd_create("kubewire-request")
    try:
        os.write(descriptor, text)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
