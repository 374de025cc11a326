"""What happens when policies, pods and namespaces change."""

from __future__ import annotations

from tests.components.policy.matrix import (
    EGRESS,
    POD_LABELS,
    A,
    B,
    C,
    Case,
    Step,
    Y,
    labels,
    pods,
    policy,
    port,
    spaces,
)

OPEN = "*  ... ... ..."
DENIED = "*  X.. ... ..."
ONLY_X_B = """
    x/b  ... ... ...
    *    X.. ... ...
"""
ONLY_X_B_AND_C = """
    x/b  ... ... ...
    x/c  ... ... ...
    *    X.. ... ...
"""
ONLY_Y = """
    y/*  ... ... ...
    *    X.. ... ...
"""
FROM_B = policy("x/p", A, ingress=[{"from": [pods(B)]}])

CASES = (
    Case(
        "a deleted policy isolates no more",
        (
            Step(DENIED, apply=(policy("x/p", A),)),
            Step(OPEN, delete=("NetworkPolicy x/p",)),
        ),
    ),
    Case(
        "a changed policy replaces the old one",
        (
            Step(ONLY_X_B, apply=(FROM_B,)),
            Step(ONLY_Y, apply=(policy("x/p", A, ingress=[{"from": [spaces(Y)]}]),)),
            Step(DENIED, apply=(policy("x/p", A),)),
        ),
    ),
    Case(
        "a policy that turns from ingress to egress",
        (
            Step(ONLY_X_B, apply=(FROM_B,)),
            Step(
                """
                x/a  X.X XXX XXX
                *    ... ... ...
                """,
                apply=(policy("x/p", A, policyTypes=EGRESS, egress=[{"to": [pods(B)]}]),),
            ),
        ),
    ),
    Case(
        "of two policies one is deleted",
        (
            Step(OPEN, apply=(policy("x/p", A), policy("x/open", A, ingress=[{}]))),
            Step(DENIED, delete=("NetworkPolicy x/open",)),
        ),
    ),
    Case(
        "a pod becomes a peer by its label, and is none any more",
        (
            Step(ONLY_X_B, apply=(FROM_B,)),
            Step(ONLY_X_B_AND_C, pod_labels={"x/c": {"pod": "b"}}),
            Step(ONLY_X_B, pod_labels={"x/c": POD_LABELS["x/c"]}),
        ),
    ),
    Case(
        "a pod becomes a subject by its label",
        (
            Step(DENIED, apply=(policy("x/p", A),)),
            Step("*  XX. ... ...", pod_labels={"x/b": {"pod": "a"}}),
            Step("*  .X. ... ...", pod_labels={"x/a": {"pod": "free"}}),
        ),
    ),
    Case(
        "a namespace becomes a peer by its label",
        (
            Step(ONLY_Y, apply=(policy("x/p", A, ingress=[{"from": [spaces(Y)]}]),)),
            Step(
                """
                y/*  ... ... ...
                z/*  ... ... ...
                *    X.. ... ...
                """,
                namespace_labels={"z": {"ns": "y"}},
            ),
            Step(
                """
                z/*  ... ... ...
                *    X.. ... ...
                """,
                namespace_labels={"y": {"ns": "other"}},
            ),
        ),
    ),
    Case(
        "a label that no selector reads changes nothing",
        (
            Step(ONLY_X_B, apply=(FROM_B,)),
            Step(
                ONLY_X_B,
                pod_labels={"x/b": {"pod": "b", "tier": "db"}},
                namespace_labels={"y": {"ns": "y", "tier": "db"}},
            ),
        ),
    ),
    Case(
        "a policy is added for each pod in turn",
        (
            Step(DENIED, apply=(policy("x/a", A),)),
            Step("*  XX. ... ...", apply=(policy("x/b", B),)),
            Step("*  XXX ... ...", apply=(policy("x/c", C),)),
        ),
    ),
    Case(
        "a rule that is widened by a port and a peer",
        (
            Step(
                """
                80/TCP
                x/b  ... ... ...
                *    X.. ... ...
                *
                *    X.. ... ...
                """,
                apply=(policy("x/p", A, ingress=[{"from": [pods(B)], "ports": [port(80)]}]),),
            ),
            Step(
                """
                80/TCP 81/UDP
                x/b  ... ... ...
                y/*  ... ... ...
                *    X.. ... ...
                *
                *    X.. ... ...
                """,
                apply=(
                    policy(
                        "x/p",
                        A,
                        ingress=[{"from": [pods(B), spaces(Y)], "ports": [port(80), port(81, "UDP")]}],
                    ),
                ),
            ),
        ),
    ),
    Case(
        "peers that have two labels lose one",
        (
            Step(
                """
                x/c  ... ... ...
                *    X.. ... ...
                """,
                apply=(policy("x/p", A, ingress=[{"from": [pods(labels(pod="c", tier="web"))]}]),),
                pod_labels={"x/c": {"pod": "c", "tier": "web"}},
            ),
            Step(DENIED, pod_labels={"x/c": {"pod": "c"}}),
        ),
    ),
)
