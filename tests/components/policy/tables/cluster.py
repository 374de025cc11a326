"""ClusterNetworkPolicy in both tiers, beside NetworkPolicies; and the two kinds before it."""

from __future__ import annotations

from typing import Any

from tests.components.policy.matrix import EGRESS, A, B, Case, Step, X, Y, Z, case, pods, policy, port, spaces
from tests.components.policy.objects import Object

NEEDS = "clusterpolicies"
OPEN = "*  ... ... ..."
A_DENIED = "*  X.. ... ..."
OF_X: Object = {"namespaces": X}
X_A: Object = {"pods": {"namespaceSelector": X, "podSelector": A}}
EVERY: Object = {"namespaces": {}}


def cluster(name: str, tier: str, priority: int, subject: Object, **rules: Any) -> Object:
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name},
        "spec": {"tier": tier, "priority": priority, "subject": subject, **rules},
    }


def older(kind: str, name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }


def inwards(action: str, *peers: Object, **fields: Any) -> Object:
    return {"action": action, "from": list(peers), **fields}


def outwards(action: str, *peers: Object, **fields: Any) -> Object:
    return {"action": action, "to": list(peers), **fields}


def tcp(number: int, last: int | None = None) -> Object:
    found: Object = {"number": number} if last is None else {"range": {"start": number, "end": last}}
    return {"tcp": {"destinationPort": found}}


CASES = (
    case(
        "Admin: what it denies no NetworkPolicy can allow",
        A_DENIED,
        cluster("deny", "Admin", 10, X_A, ingress=[inwards("Deny", EVERY)]),
        policy("x/open", ingress=[{}]),
        requires=NEEDS,
    ),
    case(
        "Admin: what it accepts no NetworkPolicy can deny",
        """
        y/*  ... ... ...
        *    XXX ... ...
        """,
        cluster("accept", "Admin", 10, OF_X, ingress=[inwards("Accept", {"namespaces": Y})]),
        policy("x/deny"),
        requires=NEEDS,
    ),
    case(
        "Admin: what no rule matches goes on to NetworkPolicies",
        """
        x/b  ... ... ...
        z/*  X.. ... ...
        *    X.. ... ...
        """,
        cluster("deny", "Admin", 10, X_A, ingress=[inwards("Deny", {"namespaces": Z})]),
        policy("x/p", A, ingress=[{"from": [pods(B), spaces(Z)]}]),
        requires=NEEDS,
    ),
    case(
        "Admin: a pod without NetworkPolicies is open to what no rule matches",
        """
        z/*  X.. ... ...
        *    ... ... ...
        """,
        cluster("deny", "Admin", 10, X_A, ingress=[inwards("Deny", {"namespaces": Z})]),
        requires=NEEDS,
    ),
    case(
        "Admin: the first rule that matches counts",
        """
        y/b  ... ... ...
        y/*  X.. ... ...
        *    ... ... ...
        """,
        cluster(
            "ordered",
            "Admin",
            10,
            X_A,
            ingress=[
                inwards("Accept", {"pods": {"namespaceSelector": Y, "podSelector": B}}),
                inwards("Deny", {"namespaces": Y}),
                inwards("Accept", {"namespaces": Y}),
            ],
        ),
        requires=NEEDS,
    ),
    case(
        "Admin: the lower priority comes first",
        """
        y/*  ... ... ...
        *    X.. ... ...
        """,
        cluster("a-late", "Admin", 20, X_A, ingress=[inwards("Deny", EVERY)]),
        cluster("z-early", "Admin", 10, X_A, ingress=[inwards("Accept", {"namespaces": Y})]),
        requires=NEEDS,
    ),
    case(
        "Admin: Pass skips the rest of the tier and leaves it to NetworkPolicies",
        """
        x/*  X.. ... ...
        y/*  ... ... ...
        *    X.. ... ...
        """,
        cluster("pass", "Admin", 10, X_A, ingress=[inwards("Pass", {"namespaces": Y}, OF_X)]),
        cluster("deny", "Admin", 20, X_A, ingress=[inwards("Deny", EVERY)]),
        policy("x/p", A, ingress=[{"from": [spaces(Y)]}]),
        requires=NEEDS,
    ),
    case(
        "Admin: a policy with egress rules alone does not act on ingress",
        """
        x/a  ... XXX ...
        *    ... ... ...
        """,
        cluster("deny", "Admin", 10, X_A, egress=[outwards("Deny", {"namespaces": Y})]),
        requires=NEEDS,
    ),
    case(
        "Admin: egress denied by a port of TCP",
        """
        80/TCP
        x/*  ... XXX ...
        *    ... ... ...
        *
        *    ... ... ...
        """,
        cluster("deny", "Admin", 10, OF_X, egress=[outwards("Deny", {"namespaces": Y}, protocols=[tcp(80)])]),
        requires=NEEDS,
    ),
    case(
        "Admin: a range of ports, and a protocol alone",
        """
        80/TCP 81/TCP 80/UDP 81/UDP
        *    X.. ... ...
        """,
        cluster(
            "deny",
            "Admin",
            10,
            X_A,
            ingress=[inwards("Deny", EVERY, protocols=[tcp(80, 81), {"udp": {}}])],
        ),
        requires=NEEDS,
    ),
    case(
        "Admin: a named port of any protocol, by each destination's number",
        """
        80/TCP
        x/a  ... XXX XXX
        *    ... ... ...
        81/TCP
        x/a  XXX ... XXX
        *    ... ... ...
        80/UDP
        x/a  XXX XXX ...
        *    ... ... ...
        81/UDP
        x/a  XXX XXX XXX
        *    ... ... ...
        """,
        cluster(
            "named",
            "Admin",
            10,
            X_A,
            egress=[
                outwards("Accept", EVERY, protocols=[{"destinationNamedPort": "web"}]),
                outwards("Deny", EVERY),
            ],
        ),
        requires=NEEDS,
    ),
    case(
        "Admin: networks",
        """
        x/a  ... X.X ...
        *    ... ... ...
        """,
        cluster(
            "networks",
            "Admin",
            10,
            X_A,
            egress=[outwards("Deny", {"networks": ["{y/a}", "{y/c}"]}), outwards("Accept", {"networks": ["{all}"]})],
        ),
        policy("x/deny", policyTypes=EGRESS, egress=[{}]),
        requires=NEEDS,
    ),
    case(
        "Admin: egress that it accepts still needs the destination's ingress",
        """
        x/a  XXX ... ...
        *    XXX ... ...
        """,
        cluster("accept", "Admin", 10, X_A, egress=[outwards("Accept", EVERY)]),
        policy("x/deny", policyTypes=["Ingress", "Egress"], egress=[{}]),
        requires=NEEDS,
    ),
    case(
        "Baseline: it denies what no policy of a developer is about",
        """
        y/*  XX. ... ...
        z/*  XXX ... ...
        *    ... ... ...
        """,
        cluster("baseline", "Baseline", 10, OF_X, ingress=[inwards("Deny", {"namespaces": Y}, {"namespaces": Z})]),
        policy("x/c", {"matchLabels": {"pod": "c"}}, ingress=[{"from": [spaces(X), spaces(Y)]}]),
        requires=NEEDS,
    ),
    case(
        "Baseline: a NetworkPolicy that isolates decides before it",
        """
        x/b  ... ... ...
        *    X.. ... ...
        """,
        cluster("baseline", "Baseline", 10, X_A, ingress=[inwards("Accept", EVERY)]),
        policy("x/p", A, ingress=[{"from": [pods(B)]}]),
        requires=NEEDS,
    ),
    case(
        "Baseline: Pass in Admin reaches it where no NetworkPolicy is",
        """
        y/*  X.. ... ...
        *    ... ... ...
        """,
        cluster("pass", "Admin", 10, X_A, ingress=[inwards("Pass", {"namespaces": Y}), inwards("Accept", EVERY)]),
        cluster("baseline", "Baseline", 10, X_A, ingress=[inwards("Deny", EVERY)]),
        requires=NEEDS,
    ),
    case(
        "Baseline: tenants are apart, within each is peace",
        """
        x/*  ... XXX XXX
        y/*  XXX ... XXX
        z/*  XXX XXX ...
        """,
        *(
            cluster(
                f"tenant-{name}",
                "Baseline",
                10,
                {"namespaces": tenant},
                ingress=[inwards("Accept", {"namespaces": tenant}), inwards("Deny", EVERY)],
            )
            for name, tenant in (("x", X), ("y", Y), ("z", Z))
        ),
        requires=NEEDS,
    ),
    Case(
        "a changed priority changes the order",
        (
            Step(
                A_DENIED,
                apply=(
                    cluster("one", "Admin", 10, X_A, ingress=[inwards("Deny", EVERY)]),
                    cluster("two", "Admin", 20, X_A, ingress=[inwards("Accept", EVERY)]),
                ),
            ),
            Step(OPEN, apply=(cluster("one", "Admin", 30, X_A, ingress=[inwards("Deny", EVERY)]),)),
            Step(A_DENIED, delete=("ClusterNetworkPolicy two",)),
        ),
        frozenset({NEEDS}),
    ),
    case(
        "AdminNetworkPolicy: Allow, Deny and Pass in order, with ports",
        """
        80/TCP
        y/*  ... ... ...
        z/*  ... ... ...
        *    X.. ... ...
        *
        z/*  ... ... ...
        *    X.. ... ...
        """,
        older(
            "AdminNetworkPolicy",
            "old",
            priority=5,
            subject=X_A,
            ingress=[
                inwards("Allow", {"namespaces": Y}, ports=[{"portNumber": {"protocol": "TCP", "port": 80}}]),
                inwards("Pass", {"namespaces": Z}),
                inwards("Deny", EVERY),
            ],
        ),
        requires="adminnetworkpolicies",
    ),
    case(
        "BaselineAdminNetworkPolicy: a NetworkPolicy overrides it",
        """
        80/TCP 81/TCP
        *    .XX ... ...
        *
        *    ... ... ...
        """,
        older(
            "BaselineAdminNetworkPolicy",
            "default",
            subject=OF_X,
            ingress=[inwards("Deny", EVERY, ports=[{"portRange": {"protocol": "TCP", "start": 80, "end": 81}}])],
        ),
        policy("x/p", A, ingress=[{"from": [spaces({})], "ports": [port(80), port(81), {"protocol": "UDP"}]}]),
        requires="adminnetworkpolicies",
    ),
)
