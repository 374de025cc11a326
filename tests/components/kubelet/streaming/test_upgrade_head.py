"""The head of a request that asks for SPDY."""

from __future__ import annotations

import pytest

from kubewire.components.kubelet.streaming.upgrade import parse_head


@pytest.mark.parametrize(
    ("query", "command"),
    [
        pytest.param("command=a%2520b", ["a%20b"], id="a percent sign is decoded once"),
        pytest.param("command=echo&command=&command=x", ["echo", "", "x"], id="an empty argument stays"),
        pytest.param("command=a+b&command=a%2Bb", ["a b", "a+b"], id="a plus sign"),
    ],
)
def test_arguments_arrive_as_they_were_given(query: str, command: list[str]) -> None:
    head = f"POST /exec/default/p/c?{query} HTTP/1.1\r\nHost: x\r\nUpgrade: SPDY/3.1".encode()
    assert list(parse_head(head).query["command"]) == command
