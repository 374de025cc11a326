"""Validates the names of a pod's sysctls (ValidateSysctls of pkg/apis/core/validation)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from kubewire.components.apiserver.kinds.fielderrors import duplicate, invalid, required
from kubewire.components.apiserver.kinds.spec import FieldError

_LENGTH = 253
_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
#: Dots or slashes separate the parts.
_NAME = rf"({_SEGMENT}[\./])*{_SEGMENT}"


def validate_sysctls(sysctls: Iterable[Mapping[str, Any]], path: str) -> list[FieldError]:
    errors = []
    seen = set[str]()
    for index, sysctl in enumerate(sysctls):
        name = sysctl.get("name") or ""
        dotted = name.replace("/", ".")
        at = f"{path}[{index}].name"
        if not name:
            errors.append(required(at))
        elif len(name) > _LENGTH or not re.fullmatch(_NAME, name):
            text = f"must have at most {_LENGTH} characters and match regex {_NAME}"
            errors.append(invalid(at, name, text))
        elif dotted in seen:
            errors.append(duplicate(at, name))
        seen.add(dotted)
    return errors
