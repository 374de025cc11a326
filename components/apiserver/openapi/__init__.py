"""The OpenAPI documents of the served kinds, and what their types say about an object.

Everything is loaded on first use. models.json then takes a few milliseconds and stays in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kubewire.components.apiserver.openapi.canonical import (
    complete,
    decode,
    decode_metadata,
    is_registered,
)
from kubewire.components.apiserver.openapi.decoding import (
    list_map_keys,
    merge_key,
    metadata_error,
    type_errors,
)
from kubewire.components.kubeapi.resources import KubeObject

if TYPE_CHECKING:
    from kubewire.components.apiserver.kinds.spec import KindSpec

__all__ = [
    "complete",
    "decode",
    "decode_metadata",
    "is_registered",
    "list_map_keys",
    "merge_key",
    "metadata_error",
    "type_errors",
    "v2_json",
    "v2_protobuf",
    "v3",
    "v3_index",
    "v3_protobuf",
]


def v2_json(kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> dict[str, Any]:
    """The OpenAPI v2 document of all kinds; crds are the established CustomResourceDefinitions."""
    from kubewire.components.apiserver.openapi import document_v2

    return document_v2.document(kinds, crds)


def v2_protobuf(kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> bytes:
    """The OpenAPI v2 document as gnostic's openapi_v2.Document, which kubectl before 1.27
    downloads.
    """
    from kubewire.components.apiserver.openapi import document_v2, gnostic_v2

    return gnostic_v2.encode(document_v2.document(kinds, crds))


def v3_index(kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> dict[str, Any]:
    """The answer of /openapi/v3, which lists the documents."""
    from kubewire.components.apiserver.openapi import document_v3

    return document_v3.index(kinds, crds)


def v3(group_version: str, kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> dict[str, Any]:
    """The OpenAPI v3 document of one group version, such as `v1` or `apps/v1`."""
    from kubewire.components.apiserver.openapi import document_v3

    return document_v3.document(group_version, kinds, crds)


def v3_protobuf(group_version: str, kinds: Sequence[KindSpec], crds: Sequence[KubeObject]) -> bytes:
    """The OpenAPI v3 document as gnostic's openapi_v3.Document."""
    from kubewire.components.apiserver.openapi import document_v3, gnostic_v3

    return gnostic_v3.encode(document_v3.document(group_version, kinds, crds))
