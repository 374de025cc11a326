"""Who may reach a pod: selection, peers, networks."""

from __future__ import annotations

from tests.components.policy.matrix import A, B, C, X, Y, Z, block, case, key, labels, pods, policy, spaces

OPEN = "*  ... ... ..."

CASES = (
    case("no policy: everything is allowed", OPEN),
    case("a policy without rules isolates its namespace", "*  XXX ... ...", policy("x/deny")),
    case("an empty rule allows everything", OPEN, policy("x/allow", ingress=[{}])),
    case(
        "an allowing policy beside a denying one allows",
        OPEN,
        policy("x/deny"),
        policy("x/allow", ingress=[{}]),
    ),
    case(
        "a podSelector selects in the policy's own namespace only",
        """
        x/b  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [pods(B)]}]),
    ),
    case(
        "a namespaceSelector selects all pods of the namespaces",
        """
        y/*  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [spaces(Y)]}]),
    ),
    case(
        "both selectors in one peer must match",
        """
        y/b  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [pods(B) | spaces(Y)]}]),
    ),
    case(
        "of two peers one must match",
        """
        y/*  ... ... ...
        x/b  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [pods(B), spaces(Y)]}]),
    ),
    case(
        "an empty podSelector as a peer is every pod of the own namespace",
        """
        x/*  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [pods({})]}]),
    ),
    case(
        "an empty namespaceSelector is every pod of the cluster",
        OPEN,
        policy("x/p", A, ingress=[{"from": [spaces({})]}]),
    ),
    case(
        "an empty namespaceSelector with a podSelector is that pod of every namespace",
        """
        */c  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [spaces({}) | pods(C)]}]),
    ),
    case(
        "an empty list of peers is everyone",
        OPEN,
        policy("x/p", A, ingress=[{"from": []}]),
    ),
    case(
        "a namespace is selected by the name that Kubernetes labels it with",
        """
        z/*  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [spaces({"matchLabels": {"kubernetes.io/metadata.name": "z"}})]}]),
    ),
    case(
        "In: a peer with one of the values",
        """
        x/a  ... ... ...
        x/b  ... ... ...
        *    XXX ... ...
        """,
        policy("x/p", ingress=[{"from": [pods(key("pod", "In", "a", "b"))]}]),
    ),
    case(
        "NotIn: namespaces with another value or none",
        """
        x/*  X.. ... ...
        *    ... ... ...
        """,
        policy("x/p", A, ingress=[{"from": [spaces(key("ns", "NotIn", "x"))]}]),
    ),
    case(
        "Exists: peers that have the label",
        """
        x/*  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [pods(key("pod", "Exists"))]}]),
    ),
    case(
        "DoesNotExist: no peer is without the label",
        "*  X.. ... ...",
        policy("x/p", A, ingress=[{"from": [pods(key("pod", "DoesNotExist"))]}]),
    ),
    case(
        "labels and expressions of one selector must all match",
        """
        y/c  ... ... ...
        *    X.. ... ...
        """,
        policy(
            "x/p",
            A,
            ingress=[{"from": [spaces(Y) | pods(labels(pod="c") | key("pod", "NotIn", "a"))]}],
        ),
    ),
    case("In: several subjects", "*  XX. ... ...", policy("x/p", key("pod", "In", "a", "b"))),
    case("NotIn: every subject but one", "*  .XX ... ...", policy("x/p", key("pod", "NotIn", "a"))),
    case("a selector that matches no subject changes nothing", OPEN, policy("x/p", labels(pod="nobody"))),
    case("a policy acts in its own namespace only", "*  ... X.. ...", policy("y/p", A)),
    case(
        "the rules of a policy add up",
        """
        x/b  ... ... ...
        z/*  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [pods(B)]}, {"from": [spaces(Z)]}]),
    ),
    case(
        "the policies of a pod add up",
        """
        x/b  ... ... ...
        y/*  ... ... ...
        *    X.. ... ...
        """,
        policy("x/one", A, ingress=[{"from": [pods(B)]}]),
        policy("x/two", A, ingress=[{"from": [spaces(Y)]}]),
    ),
    case(
        "policies for different subjects of a namespace do not mix",
        """
        x/c  ... ... ...
        y/*  .X. ... ...
        z/*  XX. ... ...
        *    .X. ... ...
        """,
        policy("x/one", A, ingress=[{"from": [spaces(X), spaces(Y)]}]),
        policy("x/two", B, ingress=[{"from": [pods(C)]}]),
    ),
    case("ipBlock: all addresses", OPEN, policy("x/p", A, ingress=[{"from": [block("{all}")]}])),
    case(
        "ipBlock: one address",
        """
        y/b  ... ... ...
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [block("{y/b}")]}]),
    ),
    case(
        "ipBlock: all addresses except two",
        """
        x/b  X.. ... ...
        z/c  X.. ... ...
        *    ... ... ...
        """,
        policy("x/p", A, ingress=[{"from": [block("{all}", "{x/b}", "{z/c}")]}]),
    ),
    case(
        "ipBlock: what one peer excepts, another may allow",
        """
        z/c  X.. ... ...
        *    ... ... ...
        """,
        policy("x/p", A, ingress=[{"from": [block("{all}", "{x/b}", "{z/c}"), block("{x/b}")]}]),
    ),
    case(
        "ipBlock: what one policy excepts, another may allow",
        OPEN,
        policy("x/one", A, ingress=[{"from": [block("{all}", "{x/b}")]}]),
        policy("x/two", A, ingress=[{"from": [pods(B)]}]),
    ),
)
