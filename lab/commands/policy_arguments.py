"""The command line of `kubewire policy`. What the commands do is in policies.py, which takes a tenth
of a second to import."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """\
examples:
  kubewire policy matrix -n shop                 who reaches whom in the running lab
  kubewire policy matrix --measure               compare it with real packets
  kubewire policy matrix -f manifests/           the same for files, without a lab
  kubewire policy explain shop/web shop/db:5432  the verdict in each direction, and the rule that decides
  kubewire policy try -f deny-all.yaml           which connections a change would open or close
  kubewire policy lint -f manifests/ -o sarif    mistakes that people make, for CI

A pod is NAMESPACE/NAME, or NAME in namespace default. docs/policy.md explains each command.
"""


def add_arguments(commands: Any, command: Any, name: Any) -> None:
    """The subcommands. command, name: cli.py's makers of a parser and of --name."""
    matrix = command(commands, "matrix", _matrix, "show who reaches whom, as the policies say")
    _source(matrix, name)
    _asked(matrix)
    matrix.add_argument("-o", "--output", choices=("text", "json", "csv", "html"), default="text")
    matrix.add_argument(
        "--measure",
        action="store_true",
        help="also connect from every pod of the lab; the exit code is 1 where packets and "
        "prediction differ",
    )
    explain = command(commands, "explain", _explain, "say which rule decides about a connection")
    _source(explain, name)
    explain.add_argument("source", metavar="SOURCE", help="a pod, or an IP address")
    explain.add_argument(
        "destination", metavar="DESTINATION[:PORT[/PROTOCOL]]", help="a pod, or an IPv4 address"
    )
    trial = command(
        commands, "try", _try, "show what policies would change before they are applied"
    )
    trial.add_argument(
        "-f", "--filename", action="append", required=True, metavar="FILE", help="what to apply"
    )
    trial.add_argument(
        "--from",
        dest="base",
        action="append",
        metavar="FILE",
        help="files that stand for the cluster (default: the running lab)",
    )
    name(trial)
    _asked(trial)
    check = command(commands, "lint", _lint, "find mistakes in policies, in files alone")
    check.add_argument("-f", "--filename", action="append", required=True, metavar="FILE")
    check.add_argument("-o", "--output", choices=("text", "json", "junit", "sarif"), default="text")
    check.add_argument(
        "--engine", default="", help="what enforces policies in the cluster, as policy.engine"
    )
    check.add_argument(
        "--fail-on",
        choices=("error", "warning", "note", "never"),
        default="error",
        help="the least severity that makes the exit code 1 (default: %(default)s)",
    )


def _source(parser: argparse.ArgumentParser, name: Any) -> None:
    name(parser)
    parser.add_argument(
        "-f",
        "--filename",
        action="append",
        metavar="FILE",
        help="manifests or folders of them in place of a running lab; - is the standard input",
    )


def _asked(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--namespace", action="append", default=[], help="only pods of these namespaces"
    )
    parser.add_argument(
        "--port", type=int, help="the port to ask (default: the first that a pod declares, or 80)"
    )
    parser.add_argument("--protocol", type=str.upper, choices=("TCP", "UDP", "SCTP"))


def _matrix(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import policies

    return policies.matrix(options)


def _explain(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import policies

    return policies.explain(options)


def _try(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import policies

    return policies.trial(options)


def _lint(options: argparse.Namespace) -> int:
    from kubewire.lab.commands import policies

    return policies.check(options)
