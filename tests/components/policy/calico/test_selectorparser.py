"""Calico's selector language: what each expression matches, its canonical text, and its errors."""

from __future__ import annotations

import pytest

from kubewire.components.policy.compiler.calico.selectorparser import Global, SelectorError, parse

A = {"a": "b", "in": "all", "has": "x"}


@pytest.mark.parametrize(
    ("text", "canonical", "matching", "other"),
    [
        ("", "all()", [{}, A], []),
        (" all( ) ", "all()", [{}, A], []),
        ("a == 'b'", 'a == "b"', [A], [{}, {"a": "c"}]),
        ("a=='b'&&c!=\"d\"", '(a == "b" && c != "d")', [A, {"a": "b", "c": "e"}], [{"a": "b", "c": "d"}]),
        ("a != 'b'", 'a != "b"', [{}, {"a": "c"}], [A]),
        ("has(a)", "has(a)", [A], [{}]),
        ("!has( a )", "!has(a)", [{}], [A]),
        ("!!has(a)", "has(a)", [A], [{}]),
        ("a in {'c', 'b', 'b'}", 'a in {"b", "c"}', [A], [{}, {"a": "d"}]),
        ("a in{}", "a in {}", [], [{}, A]),
        ("a not in {'c'}", 'a not in {"c"}', [{}, A], [{"a": "c"}]),
        ("a contains 'b'", 'a contains "b"', [A, {"a": "abc"}], [{}, {"a": "c"}]),
        ("a starts with 'b'", 'a starts with "b"', [A, {"a": "bc"}], [{}, {"a": "cb"}]),
        ("a ends  with 'b'", 'a ends with "b"', [A, {"a": "cb"}], [{}, {"a": "bc"}]),
        ("in in {'all'}", 'in in {"all"}', [A], [{}]),
        ("has == 'x'", 'has == "x"', [A], [{}]),
        ("a == 'x' || a == 'b' && in == 'all'", '(a == "x" || (a == "b" && in == "all"))', [A, {"a": "x"}], [{}]),
        ("(a == 'x' || a == 'b') && has(q)", '((a == "x" || a == "b") && has(q))', [{"a": "x", "q": ""}], [A]),
        ("!(a == 'b')", 'a != "b"', [{}], [A]),
        ("!(has(a) && has(b))", "!(has(a) && has(b))", [A], [{"a": "", "b": ""}]),
        ("""a == 'say "x"'""", """a == 'say "x"'""", [{"a": 'say "x"'}], [A]),
        ("projectcalico.org/namespace == 'x'", 'projectcalico.org/namespace == "x"', [], [A]),
    ],
)
def test_selectors(text: str, canonical: str, matching: list[dict[str, str]], other: list[dict[str, str]]) -> None:
    selector = parse(text)
    assert str(selector) == canonical
    assert str(parse(str(selector))) == canonical, "the canonical text parses to itself"
    assert [selector.matches(labels) for labels in matching] == [True] * len(matching)
    assert [selector.matches(labels) for labels in other] == [False] * len(other)


def test_global_stands_alone_for_the_caller_to_see() -> None:
    assert parse("global()") == Global()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 'b'", "expected =="),
        ("a == b", "expected string"),
        ("a == 'b", "unterminated string"),
        ("a == 'b' & has(c)", "expected &&"),
        ("a == 'b' | has(c)", "expected ||"),
        ("(a == 'b'", r"expected \)"),
        ("a in {'b'", "expected }"),
        ("a in 'b'", "expected set literal"),
        ("a", "unexpected end of string looking for op"),
        ("a b == 'c'", "unexpected characters after label 'a', was expecting an operator"),
        ("a == 'b')", "unexpected content at end of selector"),
        ("has()", r"no label name in has\( expression"),
        ("has(a", r"no closing '\)' after has\("),
        ("all(a)", r"no closing '\)' after all\("),
        ("a == 'b' &&", "unexpected end of string looking for op"),
        ("a, 'b'", "expected == or != not: ,"),
        ("?", "unexpected characters"),
    ],
)
def test_what_is_wrong_with_a_selector(text: str, said: str) -> None:
    with pytest.raises(SelectorError, match=f"^{said}".replace("||", r"\|\|")):
        parse(text)
