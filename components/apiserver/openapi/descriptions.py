"""The descriptions of definitions and fields, which `kubectl explain` shows.

The kinds of networking are described in our own words (descriptions.yaml); of the other kinds the
description says where upstream's reference is. The file is read when the first document is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from kubewire.components.apiserver.openapi.models import Model

_FILE = Path(__file__).with_name("descriptions.yaml")
_PREFIX = "io.k8s.api."
_REFERENCE = "https://kubernetes.io/docs/reference/kubernetes-api/"


@cache
def _texts() -> Mapping[str, Mapping[str, str]]:
    import yaml

    loaded: Mapping[str, Mapping[str, str]] = yaml.safe_load(_FILE.read_text())
    return loaded


def describe(model: Model, field: str = "") -> str:
    """The description of a definition, or of a field of it; "" for none."""
    own = _texts().get(model.name.removeprefix(_PREFIX), {}).get(field, "")
    if own or field or model.kind is None:
        return own
    group, version, kind = model.kind
    where = f"{group}/{version}" if group else version
    return f"{kind} of {where}. Its reference is at {_REFERENCE}"


def described() -> Mapping[str, Mapping[str, str]]:
    """Definition, without io.k8s.api., -> field -> text."""
    return _texts()
