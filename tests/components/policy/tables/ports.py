"""At which ports a pod may be reached: numbers, ranges, names, protocols."""

from __future__ import annotations

from tests.components.policy.matrix import A, B, Y, case, key, pods, policy, port, spaces

ONLY_TCP_80 = """
    80/TCP
    *    ... ... ...
    *
    *    X.. ... ...
"""
NOTHING = "*  X.. ... ..."


CASES = (
    case("a port without a protocol is one of TCP", ONLY_TCP_80, policy("x/p", A, ingress=[{"ports": [port(80)]}])),
    case(
        "a port of UDP is not one of TCP",
        """
        81/UDP
        *    ... ... ...
        *
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"ports": [port(81, "UDP")]}]),
    ),
    case(
        "a protocol without a port is all its ports",
        """
        80/UDP 81/UDP
        *    ... ... ...
        *
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"ports": [{"protocol": "UDP"}]}]),
    ),
    case(
        "an empty entry is every port of TCP",
        """
        80/TCP 81/TCP
        *    ... ... ...
        *
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"ports": [{}]}]),
    ),
    case("an empty list of ports is every port", "*  ... ... ...", policy("x/p", A, ingress=[{"ports": []}])),
    case(
        "the ports of a rule add up, across protocols",
        """
        80/TCP 81/UDP
        *    ... ... ...
        *
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"ports": [port(80, "TCP"), port(81, "UDP")]}]),
    ),
    case(
        "SCTP alone leaves nothing of TCP and UDP",
        NOTHING,
        policy("x/p", A, ingress=[{"ports": [port(80, "SCTP")]}]),
    ),
    case(
        "endPort: both ends belong to the range",
        """
        80/TCP 81/TCP
        *    ... ... ...
        *
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"ports": [port(80, "TCP", 81)]}]),
    ),
    case(
        "endPort: what is below the range is out",
        """
        81/UDP
        *    ... ... ...
        *
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"ports": [port(81, "UDP", 65535)]}]),
    ),
    case(
        "endPort: what is above the range is out",
        ONLY_TCP_80,
        policy("x/p", A, ingress=[{"ports": [port(1, "TCP", 80)]}]),
    ),
    case(
        "a named port is the number that the pod gives it: 80 in x",
        ONLY_TCP_80,
        policy("x/p", A, ingress=[{"ports": [port("web", "TCP")]}]),
    ),
    case(
        "a named port is the number that the pod gives it: 81 in y",
        """
        81/TCP
        *    ... ... ...
        *
        *    ... X.. ...
        """,
        policy("y/p", A, ingress=[{"ports": [port("web", "TCP")]}]),
    ),
    case(
        "a named port of another protocol is none",
        "*  ... ... X..",
        policy("z/p", A, ingress=[{"ports": [port("web", "TCP")]}]),
    ),
    case(
        "a named port of UDP",
        """
        80/UDP
        *    ... ... ...
        *
        *    ... ... X..
        """,
        policy("z/p", A, ingress=[{"ports": [port("web", "UDP")]}]),
    ),
    case(
        "a name that no container has is no port",
        NOTHING,
        policy("x/p", A, ingress=[{"ports": [port("nowhere", "TCP")]}]),
    ),
    case(
        "a named port beside a number",
        """
        80/TCP 81/TCP
        *    ... ... ...
        *
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"ports": [port("alt"), port(80)]}]),
    ),
    case(
        "peers and ports of one rule must both match",
        """
        80/TCP
        y/*  ... ... ...
        *    X.. ... ...
        *
        *    X.. ... ...
        """,
        policy("x/p", A, ingress=[{"from": [spaces(Y)], "ports": [port(80)]}]),
    ),
    case(
        "each rule has its own peers and ports",
        """
        80/TCP
        y/*  ... ... ...
        *    X.. ... ...
        81/TCP
        x/b  ... ... ...
        *    X.. ... ...
        *
        *    X.. ... ...
        """,
        policy(
            "x/p",
            A,
            ingress=[
                {"from": [spaces(Y)], "ports": [port(80)]},
                {"from": [pods(B)], "ports": [port(81)]},
            ],
        ),
    ),
    case(
        "two policies, one by port and one by peer",
        """
        80/TCP
        *    ... ... ...
        *
        x/b  ... ... ...
        *    X.. ... ...
        """,
        policy("x/one", A, ingress=[{"ports": [port(80)]}]),
        policy("x/two", A, ingress=[{"from": [pods(B)]}]),
    ),
    case(
        "a named port for a peer with an expression",
        """
        81/TCP
        */a  ... ... ...
        */b  ... ... ...
        *    ... XXX ...
        *
        *    ... XXX ...
        """,
        policy(
            "y/p",
            ingress=[{"from": [spaces({}) | pods(key("pod", "In", "a", "b"))], "ports": [port("web")]}],
        ),
    ),
)
