"""Makes mypy refuse `.get("misspelt")` of a TypedDict; `plugins` in pyproject.toml names this file.

mypy reports an unknown key in `obj["misspelt"]`, but gives `obj.get("misspelt")` the type `object`,
because a subtype of the TypedDict may have the key. An object of the Kubernetes API has the fields
of its kind and no others, and most fields are read with `.get`.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.errorcodes import TYPEDDICT_UNKNOWN_KEY
from mypy.plugin import MethodContext, Plugin
from mypy.plugins.default import typed_dict_get_callback
from mypy.typeops import try_getting_str_literals
from mypy.types import Type, TypedDictType


class KnownKeys(Plugin):
    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        return _get if fullname == "typing.Mapping.get" else None


def _get(context: MethodContext) -> Type:
    """As mypy's own hook, and an error for a literal key that the TypedDict lacks."""
    mapping = context.type
    if isinstance(mapping, TypedDictType) and context.args and context.args[0]:
        keys = try_getting_str_literals(context.args[0][0], context.arg_types[0][0]) or ()
        for key in keys:
            if key not in mapping.items:
                name = mapping.fallback.type.name
                context.api.fail(
                    f'TypedDict "{name}" has no key "{key}"',
                    context.context,
                    code=TYPEDDICT_UNKNOWN_KEY,
                )
    return typed_dict_get_callback(context)


def plugin(version: str) -> type[Plugin]:
    """mypy's entry point."""
    return KnownKeys
