"""The verb `reachability`: how a matrix is read, what is measured at once, and how a difference is shown."""

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from kubewire.scenarios.engine.handle import Completed
from kubewire.scenarios.engine.scene import probe
from kubewire.scenarios.engine.scene.reaching import Attempt, Outcome, main, measure
from kubewire.scenarios.engine.verbs.reachability import Reachability, Table
from tests.scenarios.test_scenario_runs import PODS, outcome

MATRIX = """
  to        pod:db:5432  service:db:80/UDP
  pod:web   .            -
  pod:spy   X            r
"""


def test_a_matrix_is_read_by_its_words():
    assert list(Table.parse(MATRIX).cells()) == [
        ("pod:web", "pod:db:5432", "."),
        ("pod:spy", "pod:db:5432", "X"),
        ("pod:spy", "service:db:80/UDP", "r"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pod:db:80\npod:web .", "needs a line `to TARGET...`, and a line for each source"),
        ("to pod:db:80\npod:web . .", "the line of pod:web has 2 marks for 1 targets"),
        (
            "to pod:db:80\npod:web ok",
            "the line of pod:web has 'ok'; marks are . reached, X no answer, r refused, - not asked",
        ),
        ("to pod:db:80\npod:web .\npod:web X", "pod:web has two lines"),
    ],
)
def test_a_wrong_matrix_is_named_before_a_lab_starts(text, problem):
    assert Reachability.problem({"matrix": text}) == ("matrix", problem)


class Lab:
    """Answers for each source: a list of results, or an error that start raises."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    def start(self, target, *, main, args):
        answer = self.answers[target]
        if isinstance(answer, Exception):
            raise answer
        code, out = (answer, b"") if isinstance(answer, int) else (0, json.dumps({"results": answer}).encode())
        return SimpleNamespace(wait=lambda _: Completed(code, out, b"no module"), stop=lambda: None)


def test_each_attempt_gets_its_own_outcome():
    attempts = [Attempt("a", "10.0.0.1", 80), Attempt("a", "10.0.0.2", 80), Attempt("b", "10.0.0.1", 80)]
    lab = Lab({"a": [{"ms": 1}, {"error": "timeout", "message": "no answer", "ms": 9}], "b": LookupError("no b")})
    found = measure(lab, attempts)  # type: ignore[arg-type]
    assert [found[attempt].mark for attempt in attempts] == [".", "X", "?"]
    assert found[attempts[2]] == Outcome("blind", "no b")
    ended = measure(Lab({"a": 1}), attempts[:1])  # type: ignore[arg-type]
    assert ended[attempts[0]].message == "the probe at a ended with code 1: no module"


def test_attempts_of_one_place_wait_together(capsys, monkeypatch):
    """Each waits for all others to have begun: one after another, none would ever end."""
    together = threading.Barrier(3, timeout=60)
    monkeypatch.setitem(probe.PROBES, "tcp", lambda request, result: result.update(met=bool(together.wait() + 1)))
    request = {"probe": "tcp", "host": "h", "port": 1, "timeout": 1}
    assert main([json.dumps({"requests": [request] * 3})]) == 0
    assert [one["met"] for one in json.loads(capsys.readouterr().out)["results"]] == [True] * 3


@pytest.mark.packet
def test_a_matrix_is_measured_on_packets():
    status, problem, (seen,) = outcome(f"""{PODS}
steps:
  - expect:
      - reachability: |
            to         pod:b:8080  pod:b:8081/UDP  pod:b:8099
            pod:a      .           .               r
            worker-2   .           .               r
""")
    assert (status, problem, seen) == ("passed", "", "6 of 6 connections are as expected")


@pytest.mark.packet
def test_a_cell_that_differs_is_named_with_what_the_policies_say():
    status, problem, _ = outcome(f"""{PODS}
manifests:
  - apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: {{name: deny}}
    spec: {{podSelector: {{}}}}
steps:
  - expect:
      - within: 1s
        reachability: |
            to         pod:b:8080
            pod:a      X
""")
    assert status == "failed"
    assert "pod:a -> pod:b:8080: expected no answer, got connected; the policies say denied" in problem
    assert "ingress: isolated by NetworkPolicy" in problem and "/deny, no rule allows" in problem
