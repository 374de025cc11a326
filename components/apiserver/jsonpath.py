"""The JSONPath of additionalPrinterColumns and selectableFields
(https://kubernetes.io/docs/reference/kubectl/jsonpath/): one path, of those whose work does not
grow faster than the object.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from kubewire.components.kubeapi.jsonpath import JSONPath, JSONPathError


@lru_cache(maxsize=512)
def parse(path: str) -> JSONPath:
    """Parses a path; raises ValueError when it is not supported."""
    text = path.strip().removeprefix("{").removesuffix("}")
    if "{" in text or "}" in text:
        raise JSONPathError(f"{path}: one path is wanted, without text around it")
    return JSONPath.parse(text, linear=True)


def find(obj: Any, path: str) -> list[Any]:
    """Returns every value to which the path leads."""
    return parse(path).find(obj)
