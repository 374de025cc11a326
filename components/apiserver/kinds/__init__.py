"""The built-in kinds."""

from components.apiserver.kinds.spec import KindSpec

KINDS: tuple[KindSpec, ...] = ()
