"""The names of Weave NPC's chains and sets, and the texts in its comments."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha1

from kubewire.components.policy.model import Definition
from kubewire.components.policy.selectors import (
    All,
    And,
    Equals,
    Has,
    In,
    Not,
    Selector,
)

MAIN = "WEAVE-NPC"
DEFAULT = "WEAVE-NPC-DEFAULT"
INGRESS = "WEAVE-NPC-INGRESS"
EGRESS = "WEAVE-NPC-EGRESS"
EGRESS_DEFAULT = "WEAVE-NPC-EGRESS-DEFAULT"
EGRESS_CUSTOM = "WEAVE-NPC-EGRESS-CUSTOM"
EGRESS_ACCEPT = "WEAVE-NPC-EGRESS-ACCEPT"
#: The mark of a packet whose egress is allowed.
EGRESS_MARK = "0x40000/0x40000"
#: The group of NFLOG to which packets go before they are dropped.
NFLOG_GROUP = 86
SET_PREFIX = "weave-"

#: 85 printable characters, so that a SHA-1 sum fits into the 31 characters of a set's name.
_SYMBOLS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789(){}[]+=_$%^!*|/?.;:@#~"


def set_name(text: str) -> str:
    """The name of the set for a text, as weave-npc makes it: the SHA-1 sum in base 85."""
    number = int.from_bytes(sha1(text.encode()).digest(), "big")
    symbols = []
    while number:
        number, remainder = divmod(number, len(_SYMBOLS))
        symbols.append(_SYMBOLS[remainder])
    return SET_PREFIX + "".join(symbols)


def selector_text(selector: Selector) -> str:
    """A label selector as kubectl writes it: `app=web,tier in (a,b)`, sorted by key."""
    terms = selector.terms if isinstance(selector, And) else (selector,)
    written = [(min(term.keys(), default=""), _term(term)) for term in terms]
    return ",".join(text for _, text in sorted(written) if text)


def _term(term: Selector) -> str:
    if isinstance(term, All):
        return ""
    if isinstance(term, Equals):
        return f"{term.key}={term.value}"
    if isinstance(term, In):
        return f"{term.key} in ({','.join(term.values)})"
    if isinstance(term, Has):
        return term.key
    if isinstance(term, Not) and isinstance(term.term, In):
        return f"{term.term.key} notin ({','.join(term.term.values)})"
    if isinstance(term, Not) and isinstance(term.term, Has):
        return f"!{term.term.key}"
    raise ValueError(f"{term} is no term of a label selector")


def selects_namespaces(definition: Definition) -> bool:
    """Whether it is all pods of some namespaces, which is a list of their sets."""
    return definition.namespaces is not None and isinstance(definition.selector, All)


def key_of(definition: Definition) -> str:
    """The selectors of a definition in one text."""
    namespaces = "" if definition.namespaces is None else selector_text(definition.namespaces)
    return namespaces + selector_text(definition.selector)


@lru_cache(maxsize=16384)
def name_of(definition: Definition) -> str:
    """The name of the set with a definition's pods."""
    return set_name(f"{definition.namespace}:{key_of(definition)}")


@lru_cache(maxsize=16384)
def comment_of(definition: Definition) -> str:
    """What a rule's comment says of a definition."""
    if definition.namespace:
        return f"pods: namespace: {definition.namespace}, selector: {key_of(definition)}"
    return f"namespaces: selector: {key_of(definition)}"
