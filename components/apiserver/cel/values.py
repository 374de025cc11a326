"""Values of Kubernetes' own types in expressions.

A value, such as a Quantity, is a protobuf message with one text, because only messages pass between
the C++ engine and Python with their type. Equal values have equal texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

#: A function of a library: its name, whether it is a method, the types of the arguments and of the
#: result, and what it does.
Function = tuple[str, bool, tuple[str, ...], str, Callable[..., Any]]

#: The messages by package. Each has the one field `text`.
_MESSAGES: Mapping[str, tuple[str, ...]] = {
    "kubernetes": (
        "Quantity",
        "URL",
        "Semver",
        "NamedFormat",
        "OptionalValue",
    ),
    "kubernetes.authorization": (
        "Authorizer",
        "PathCheck",
        "GroupCheck",
        "ResourceCheck",
        "Decision",
    ),
    "net": ("IP", "CIDR"),
}


def declare(pool: Any) -> None:
    """Adds the messages to a descriptor pool."""
    from google.protobuf import descriptor_pb2

    for package, names in _MESSAGES.items():
        proto = descriptor_pb2.FileDescriptorProto(
            name=f"kubewire/cel/{package}.proto", package=package, syntax="proto3"
        )
        for name in names:
            message = proto.message_type.add(name=name)
            message.field.add(name="text", number=1, type=9, label=1)
        pool.Add(proto)


@cache
def pool() -> Any:
    """A descriptor pool with these messages alone."""
    from google.protobuf import descriptor_pool

    made = descriptor_pool.DescriptorPool()
    declare(made)
    return made


@cache
def _class(name: str) -> Any:
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(pool().FindMessageTypeByName(name))


def make(name: str, text: str) -> Any:
    """A value of a type, such as kubernetes.Quantity."""
    return _class(name)(text=text)
