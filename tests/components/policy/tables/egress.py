"""Whom a pod may reach, and what follows when both ends have policies."""

from __future__ import annotations

from tests.components.policy.matrix import BOTH, EGRESS, A, B, C, Y, Z, block, case, pods, policy, port, spaces

CASES = (
    case(
        "egress without rules isolates the namespace",
        """
        x/*  XXX XXX XXX
        *    ... ... ...
        """,
        policy("x/deny", policyTypes=EGRESS),
    ),
    case("an empty egress rule allows everything", "*  ... ... ...", policy("x/p", policyTypes=EGRESS, egress=[{}])),
    case(
        "egress to pods of the own namespace",
        """
        x/a  X.X XXX XXX
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, egress=[{"to": [pods(B)]}]),
    ),
    case(
        "egress to namespaces",
        """
        x/a  XXX ... XXX
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, egress=[{"to": [spaces(Y)]}]),
    ),
    case(
        "egress to pods of a namespace, or to another namespace",
        """
        x/a  XXX X.X ...
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, egress=[{"to": [spaces(Y) | pods(B), spaces(Z)]}]),
    ),
    case(
        "egress to a network with exceptions",
        """
        x/a  ... .X. ..X
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, egress=[{"to": [block("{all}", "{y/b}", "{z/c}")]}]),
    ),
    case(
        "egress to an address, at a port",
        """
        80/TCP
        x/a  XXX .XX XXX
        *    ... ... ...
        *
        x/a  XXX XXX XXX
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, egress=[{"to": [block("{y/a}")], "ports": [port(80)]}]),
    ),
    case(
        "egress to a range of ports",
        """
        81/UDP
        *    ... ... ...
        *
        x/a  XXX XXX XXX
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, egress=[{"ports": [port(81, "UDP", 90)]}]),
    ),
    case(
        "egress to a named port is each destination's own number",
        """
        80/TCP
        x/a  ... XXX XXX
        *    ... ... ...
        81/TCP
        x/a  XXX ... XXX
        *    ... ... ...
        *
        x/a  XXX XXX XXX
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, egress=[{"ports": [port("web")]}]),
    ),
    case(
        "egress to a named port of certain pods",
        """
        81/TCP
        x/a  XXX X.X XXX
        *    ... ... ...
        *
        x/a  XXX XXX XXX
        *    ... ... ...
        """,
        policy(
            "x/p",
            A,
            policyTypes=EGRESS,
            egress=[
                {"to": [spaces(Y) | pods(B)], "ports": [port("web")]},
                {"to": [spaces(Z)], "ports": [port("web")]},
            ],
        ),
    ),
    case(
        "egress to a named port within a network",
        """
        81/TCP
        x/a  XXX .XX XXX
        *    ... ... ...
        *
        x/a  XXX XXX XXX
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, egress=[{"to": [block("{y/a}")], "ports": [port("web")]}]),
    ),
    case(
        "egress to a named port of pods, or to a number",
        """
        80/TCP 81/TCP
        x/a  XXX ... XXX
        *    ... ... ...
        *
        x/a  XXX XXX XXX
        *    ... ... ...
        """,
        policy(
            "x/p",
            A,
            policyTypes=EGRESS,
            egress=[{"to": [spaces(Y)], "ports": [port("web"), port(80)]}],
        ),
    ),
    case(
        "the egress policies of a pod add up",
        """
        x/a  X.X ... XXX
        *    ... ... ...
        """,
        policy("x/one", A, policyTypes=EGRESS, egress=[{"to": [pods(B)]}]),
        policy("x/two", A, policyTypes=EGRESS, egress=[{"to": [spaces(Y)]}]),
    ),
    case(
        "a connection needs the source's egress and the destination's ingress",
        """
        x/a  XXX X.X XXX
        x/b  ... .X. ...
        x/c  ... .X. ...
        y/*  ... .X. ...
        z/*  ... .X. ...
        """,
        policy("x/out", A, policyTypes=EGRESS, egress=[{"to": [spaces(Y) | pods(B)]}]),
        policy("y/in", B, ingress=[{"from": [spaces({"matchLabels": {"ns": "x"}}) | pods(A)]}]),
    ),
    case(
        "ingress that allows does not help against egress that denies",
        """
        x/*  XXX XXX XXX
        *    ... ... ...
        """,
        policy("x/out", policyTypes=EGRESS),
        policy("y/in", ingress=[{"from": [spaces({})]}]),
    ),
    case(
        "without policyTypes, egress rules make a policy act on both directions",
        """
        x/a  XXX ... XXX
        *    X.. ... ...
        """,
        policy("x/p", A, egress=[{"to": [spaces(Y)]}]),
    ),
    case(
        "policyTypes Egress: ingress rules count for nothing, and ingress is open",
        """
        x/a  XXX XXX XXX
        *    ... ... ...
        """,
        policy("x/p", A, policyTypes=EGRESS, ingress=[{"from": [pods(B)]}]),
    ),
    case(
        "policyTypes Ingress: egress rules count for nothing, and egress is open",
        "*  X.. ... ...",
        policy("x/p", A, policyTypes=["Ingress"], egress=[{"to": [pods(B)]}]),
    ),
    case(
        "both types without rules: the namespace is alone, each pod by itself",
        """
        x/*  XXX XXX XXX
        *    XXX ... ...
        """,
        policy("x/deny", policyTypes=BOTH),
    ),
    case(
        "both types with a rule each",
        """
        x/a  XX. XXX XXX
        x/c  .XX XXX XXX
        x/b  XXX XXX XXX
        *    XXX ... ...
        """,
        policy("x/deny", policyTypes=BOTH),
        policy("x/a", A, policyTypes=BOTH, ingress=[{"from": [pods(C)]}], egress=[{"to": [pods(C)]}]),
        policy("x/c", C, policyTypes=BOTH, ingress=[{"from": [pods(A)]}], egress=[{"to": [pods(A)]}]),
    ),
)
