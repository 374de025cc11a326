"""What may be written in ResourceQuotas and LimitRanges, with upstream's texts."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.apiserver.kinds.cluster import limitrange_validation, quota_validation


def messages(errors: Any) -> list[str]:
    return [error.message() for error in errors]


def quota(hard: Any = None, **spec: Any) -> Any:
    return {"metadata": {"name": "q"}, "spec": {"hard": hard or {"pods": "1"}, **spec}}


def selector(**expression: Any) -> Any:
    return {"scopeSelector": {"matchExpressions": [expression]}}


UNSUPPORTED = "unsupported scope applied to resource"
AT = "spec.scopeSelector.matchExpressions"


@pytest.mark.parametrize(
    ("given", "want"),
    [
        pytest.param(
            quota({"pods": "1", "count/deployments.apps": "2", "requests.example.com/gpu": "1", "limits.cpu": "100m"}),
            [],
            id="entries of every kind",
        ),
        pytest.param(
            quota({"foo": "1"}),
            [
                'spec.hard[foo]: Invalid value: "foo": must be a standard resource type or fully qualified',
                'spec.hard[foo]: Invalid value: "foo": must be a standard resource for quota',
            ],
            id="an unknown entry",
        ),
        pytest.param(
            quota({"cpu": "-1", "pods": "500m"}),
            [
                'spec.hard[cpu]: Invalid value: "-1": must be greater than or equal to 0',
                'spec.hard[pods]: Invalid value: "500m": must be an integer',
            ],
            id="amounts that make no sense",
        ),
        pytest.param(
            quota({"pods": "1", "cpu": "1"}, scopes=["BestEffort", "NotBestEffort"]),
            [
                f'spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: {UNSUPPORTED}',
                'spec.scopes: Invalid value: ["BestEffort","NotBestEffort"]: conflicting scopes',
            ],
            id="scopes that exclude each other, and pods without CPU",
        ),
        pytest.param(
            quota(scopes=["Sometimes"]),
            [
                'spec.scopes: Invalid value: ["Sometimes"]: unsupported scope',
                f'spec.scopes: Invalid value: ["Sometimes"]: {UNSUPPORTED}',
            ],
            id="an unknown scope",
        ),
        pytest.param(
            quota(**selector(scopeName="PriorityClass", operator="In")),
            [
                f"{AT}.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            ],
            id="no value",
        ),
        pytest.param(
            quota(**selector(scopeName="PriorityClass", operator="Exists", values=["x"])),
            [
                f"{AT}.values: Invalid value: [\"x\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' "
                "for scope selector"
            ],
            id="a value too much",
        ),
        pytest.param(
            quota(**selector(scopeName="PriorityClass", operator="Like")),
            [f'{AT}.operator: Invalid value: "Like": not a valid selector operator'],
            id="an unknown operator",
        ),
    ],
)
def test_quotas(given: Any, want: list[str]) -> None:
    assert messages(quota_validation.validate_create(given)) == want


def test_the_scopes_of_a_quota_stay() -> None:
    errors = quota_validation.validate_update(quota(scopes=["Terminating"]), quota())
    assert messages(errors) == ['spec.scopes: Invalid value: ["Terminating"]: field is immutable']


@pytest.mark.parametrize(
    ("item", "want"),
    [
        pytest.param({"type": "Container", "min": {"cpu": "1"}, "max": {"cpu": "2"}}, [], id="a range"),
        pytest.param(
            {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}},
            ['spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1'],
            id="an empty range",
        ),
        pytest.param(
            {"type": "Container", "defaultRequest": {"cpu": "2"}, "default": {"cpu": "1"}},
            [
                'spec.limits[0].defaultRequest[cpu]: Invalid value: "2": default request value 2 is greater than '
                "default limit value 1"
            ],
            id="a request above the limit",
        ),
        pytest.param(
            {"type": "Pod", "default": {"cpu": "1"}},
            ["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            id="a pod has no defaults",
        ),
        pytest.param(
            {"type": "PersistentVolumeClaim", "min": {"cpu": "1"}},
            [
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but "
                "neither was provided"
            ],
            id="claims without a size",
        ),
        pytest.param(
            {"type": "Node"},
            ['spec.limits[0].type: Invalid value: "Node": must be a standard limit type or fully qualified'],
            id="an unknown type",
        ),
        pytest.param(
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "5"}, "min": {"cpu": "1"}, "max": {"cpu": "2"}},
            [
                'spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "5": ratio 5 is greater than max/min = '
                "2.000000"
            ],
            id="a ratio that the range does not allow",
        ),
    ],
)
def test_limit_ranges(item: Any, want: list[str]) -> None:
    assert messages(limitrange_validation.validate_create({"spec": {"limits": [item]}})) == want


def test_a_type_has_one_item() -> None:
    item = {"type": "Pod"}
    errors = limitrange_validation.validate_create({"spec": {"limits": [item, item]}})
    assert messages(errors) == ['spec.limits[1].type: Duplicate value: "Pod"']
