"""Label and field selectors select as upstream's do."""

import pytest

from kubewire.components.kubeapi.selectors import FieldSelector, LabelSelector, SelectorError

LABELS = {"app": "web", "tier": "front", "version": "3"}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app!=web", False),
        ("other!=web", True),
        ("app in (web, db)", True),
        ("app notin (web,db)", False),
        ("other notin (a)", True),
        ("app", True),
        ("!app", False),
        ("!other", True),
        ("version>2", True),
        ("version<3", False),
        ("app=web,tier in (back)", False),
        ("app in (web),!other,tier=front", True),
        ("app=", False),
        ("app in (web,)", True),
        ("in", False),
        ("app.kubernetes.io/name=web", False),
    ],
)
def test_a_selector_text_selects(text: str, selected: bool) -> None:
    assert LabelSelector.parse(text).matches(LABELS) is selected


OPERATORS = "in, notin, =, ==, !=, gt, lt"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("app=web=x", "found '=', expected: ',' or 'end of string'"),
        ("a b", f"unable to parse requirement: found 'b', expected: {OPERATORS}"),
        ("in (a)", f"unable to parse requirement: found '(', expected: {OPERATORS}"),
        ("app in a", "unable to parse requirement: found 'a' expected: '('"),
        ("app in (web", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("app in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("=x", "found '=', expected: !, identifier, or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
    ],
)
def test_a_text_that_is_no_selector_is_told_as_upstream_tells_it(text: str, complaint: str) -> None:
    with pytest.raises(SelectorError) as error:
        LabelSelector.parse(text)
    assert str(error.value) == complaint


def test_an_absent_selector_object_selects_nothing_and_an_empty_one_everything() -> None:
    assert not LabelSelector.from_object(None).matches(LABELS)
    assert LabelSelector.from_object({}).matches(LABELS)
    assert not LabelSelector.from_map({}).matches(LABELS)


def test_match_labels_and_expressions_must_all_hold() -> None:
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}],
    }
    assert LabelSelector.from_object(selector).matches(LABELS)
    assert not LabelSelector.from_object(selector).matches(LABELS | {"tier": "back"})


@pytest.mark.parametrize("text", ["a=b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", "a>1", "a=b,!c"])
def test_a_selector_prints_as_it_was_written(text: str) -> None:
    assert str(LabelSelector.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("metadata.name=x", True),
        ("metadata.name!=x", False),
        ("spec.nodeName=", True),
        ("status.phase==Running", False),
    ],
)
def test_field_selectors_compare_and_a_missing_field_is_empty(text: str, selected: bool) -> None:
    assert FieldSelector.parse(text).matches({"metadata.name": "x"}) is selected


def test_a_field_selector_without_operator_is_an_error() -> None:
    with pytest.raises(SelectorError, match="can't understand 'name'"):
        FieldSelector.parse("name")
