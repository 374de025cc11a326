"""The rules that ConfigMaps and Secrets share: keys that can be file names, a size limit,
`immutable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kubewire.components.apiserver.kinds import names
from kubewire.components.apiserver.kinds.fielderrors import by_rule, forbidden
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.kubeapi.resources import KubeObject

#: The most bytes of data (core.MaxSecretSize).
MOST_BYTES = 1024 * 1024


def validate_keys(data: Mapping[str, str], path: str) -> list[FieldError]:
    return [error for key in data for error in by_rule(names.config_map_key, f"{path}[{key}]", key)]


def decoded_size(data: Mapping[str, str]) -> int:
    """The number of bytes that base64 values decode to."""
    return sum(len(value) // 4 * 3 - value[-2:].count("=") for value in data.values())


def immutable_data(new: KubeObject, old: KubeObject, fields: Sequence[str]) -> list[FieldError]:
    """Forbids changes of the data, and of `immutable`, once `immutable` is true."""
    if not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    errors = [] if new.get("immutable") else [forbidden("immutable", text)]
    changed = [key for key in fields if (new.get(key) or {}) != (old.get(key) or {})]
    return errors + [forbidden(key, text) for key in changed]
