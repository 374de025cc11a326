"""`kubewire policy` on files: the examples of docs/policy.md as written, other forms of output, and errors."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.lab.kubewire_cli import ROOT, Cli

PAGE = (ROOT / "docs/policy.md").read_text()
SHOP = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)[0]
DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {}
"""
#: A pod of the page's file, and a policy that does not select it.
TYPO = """\
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: postgres, ports: [{containerPort: 5432}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: db
  namespace: shop
spec:
  podSelector: {matchLabels: {app: bd}}
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    (tmp_path / "shop.yaml").write_text(SHOP)
    (tmp_path / "deny.yaml").write_text(DENY)
    (tmp_path / "typo.yaml").write_text(TYPO)
    return Cli(tmp_path / "cli")


def said(cli: Cli, line: str, code: int = 0) -> str:
    done = cli.run(*shlex.split(line), cwd=cli.folder.parent)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


EXAMPLES = [
    example
    for block in re.findall(r"^```\n(\$ .*?)^```", PAGE, re.M | re.S)
    for example in re.findall(r"^\$ kubewire (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
]


@pytest.mark.parametrize(("line", "output"), EXAMPLES, ids=[line for line, _ in EXAMPLES])
def test_the_examples_of_the_page(cli: Cli, line: str, output: str) -> None:
    assert said(cli, line) == output


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 4


def test_what_a_change_would_do(cli: Cli) -> None:
    why = "(ingress: isolated by NetworkPolicy shop/deny, no rule allows)"
    assert said(cli, "policy try -f deny.yaml --from shop.yaml").splitlines() == [
        f"default/intruder -> shop/web 8080/TCP: allowed -> denied {why}",
        f"shop/db -> shop/web 8080/TCP: allowed -> denied {why}",
        "2 of 6 connections change",
    ]


def test_forms_for_programs(cli: Cli) -> None:
    cells = json.loads(said(cli, "policy matrix -f shop.yaml -o json"))
    assert {(one["source"], one["allowed"]) for one in cells if one["destination"] == "shop/db"} == {
        ("default/intruder", False),
        ("shop/web", True),
    }
    table = said(cli, "policy matrix -f shop.yaml -o csv -n shop --port 5432").splitlines()
    assert table[0] == "source,destination,port,protocol,allowed,egress,ingress" and len(table) == 3
    sarif = json.loads(said(cli, "policy lint -f deny.yaml -o sarif --engine none", code=1))
    assert sarif["version"] == "2.1.0"
    (result,) = sarif["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("KW002", "error")
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "deny.yaml"
    assert result["ruleId"] in {rule["id"] for rule in sarif["runs"][0]["tool"]["driver"]["rules"]}
    assert json.loads(said(cli, "policy lint -f shop.yaml -o json")) == []


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("policy matrix -f nowhere.yaml", "nowhere.yaml: No such file or directory"),
        ("policy matrix -f deny.yaml", "there is no pod with an address"),
        ("policy explain -f shop.yaml web shop/db", "there is no pod default/web; pods are default/intruder, shop/db"),
        ("policy explain -f shop.yaml shop/web shop/db:pg", "'pg' is not a port; write such as shop/db:5432"),
        ("policy lint -f shop.yaml --engine felix", "--engine: felix is not known; known are"),
        ("policy matrix", "lab 'default' is not running"),
        ("policy matrix -f shop.yaml --measure", "--measure needs a running lab; files have no pods that send"),
    ],
)
def test_errors(cli: Cli, line: str, error: str) -> None:
    assert error in said(cli, line, code=2)
