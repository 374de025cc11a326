"""Words of a command line that are another program's reach it as they stand, options too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pytest

from kubewire.lab import cli
from kubewire.lab.passing import divide


@pytest.mark.parametrize(
    ("line", "own", "passed"),
    [
        ("kubectl -n x get pods", "kubectl", "-n x get pods"),
        ("kubectl --context=a get pods", "kubectl", "--context=a get pods"),
        ("kubectl --name demo -n x get pods", "kubectl --name demo", "-n x get pods"),
        ("kubectl --name=demo get pods --name x", "kubectl --name=demo", "get pods --name x"),
        ("--name demo kubectl -n x get pods", "kubectl --name demo", "-n x get pods"),
        ("--name=demo down", "down --name=demo", None),
        ("kubectl --help", "kubectl", "--help"),
        ("kubectl -- get pods", "kubectl", "get pods"),
        ("kubectl exec p -- ls -l", "kubectl", "exec p -- ls -l"),
        ("helm -n x install web ./chart --set a=b", "helm", "-n x install web ./chart --set a=b"),
        ("test -k name", "test", "-k name"),
        ("test -p plugin tests/lab", "test", "-p plugin tests/lab"),
        ("test --name x", "test", "--name x"),
        ("node worker-1 -- ip -6 route", "node worker-1", "ip -6 route"),
        ("node --name demo worker-1 ls -l", "node --name demo worker-1", "ls -l"),
        ("node worker-1 --version", "node worker-1", "--version"),
        ("node -h", "node -h", None),
        ("up --workers 2", "up --workers 2", None),
        ("", "", None),
    ],
    ids=lambda value: str(value) or "nothing",
)
def test_a_line_is_divided(line: str, own: str, passed: str | None) -> None:
    divided = divide(line.split())
    assert (" ".join(divided.own), None if divided.passed is None else " ".join(divided.passed)) == (own, passed)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What the commands are called with, instead of running them."""
    called: list[argparse.Namespace] = []

    def command(given: argparse.Namespace) -> int:
        called.append(given)
        return 0

    for name in ("_kubectl", "_helm", "_node", "_test", "_down", "_up"):
        monkeypatch.setattr(cli, name, command)
    monkeypatch.delenv("KUBEWIRE_LAB", raising=False)
    return called


@pytest.mark.parametrize(
    ("line", "variable", "name", "arguments"),
    [
        (["kubectl", "-n", "x", "get", "pods"], "", "default", ["-n", "x", "get", "pods"]),
        (["kubectl", "-n", "x", "get", "pods"], "demo", "demo", ["-n", "x", "get", "pods"]),
        (["--name", "a", "kubectl", "version"], "demo", "a", ["version"]),
        (["--name", "a", "helm", "-n", "x", "list"], "", "a", ["-n", "x", "list"]),
        (["--name", "a", "node", "worker-1", "--", "ls", "-l"], "", "a", ["ls", "-l"]),
        (["--name", "a", "down"], "", "a", None),
        (["down"], "demo", "demo", None),
        (["up"], "demo", "demo", None),
        (["up"], "", None, None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else repr(value),
)
def test_the_name_before_the_verb_or_the_variable_picks_the_lab(
    options: list[argparse.Namespace], monkeypatch: pytest.MonkeyPatch,
    line: Sequence[str], variable: str, name: str | None, arguments: list[str] | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("KUBEWIRE_LAB", variable)
    assert cli.main(line) == 0
    assert (options[0].name, getattr(options[0], "arguments", None)) == (name, arguments)


def test_a_name_for_a_command_without_a_lab_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--name", "demo", "doctor"])
    assert "unrecognized arguments: --name demo" in capsys.readouterr().err
