"""What stands in the query is decoded once, and of two values the first counts (url.Values.Get)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.apiserver.in_process import InProcess, in_process

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("apiserver")) as running:
        assert running.create(CONFIGMAPS, {"metadata": {"name": "a", "labels": {"x": "y"}}}).code == 201
        yield running


def test_a_percent_sign_stays_one(api: InProcess) -> None:
    answer = api("GET", f"{CONFIGMAPS}?labelSelector=%255d")
    assert answer.code == 400
    assert 'Invalid value: "%5d"' in answer.body["message"]


def test_the_first_of_two_values_counts(api: InProcess) -> None:
    listed = api("GET", f"{CONFIGMAPS}?labelSelector=x%3Dy&labelSelector=x%3Dz").body["items"]
    assert [one["metadata"]["name"] for one in listed] == ["a"]
