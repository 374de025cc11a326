"""The kernel cannot tell our messages from the tools': what it dumps afterwards is the same, byte for byte."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from components.machinery.nfnetlink.iptables import compile_table
from components.machinery.nfnetlink.netlink import NetlinkError, NfTablesSocket, attributes
from components.machinery.nfnetlink.nft import NFPROTO, NftCompiler, Unsupported
from tests.scratch import isolated

GOLDEN = sorted((Path(__file__).parents[3] / "golden/kube_proxy").glob("*.txt"), key=lambda path: path.name)
_GET_RULE = 7

#: Forms that kube-proxy's golden files do not have.
MORE_IPTABLES = """\
*nat
:KUBE-A - [0:0]
:KUBE-B - [0:0]
-A KUBE-A -i cni0 -m comment --comment "ns/a:b cluster IP" -m udp -p udp -d 10.96.0.1 --dport 53 ! -s 10.244.0.0/18 -j KUBE-B
-A KUBE-A ! -i veth+ -o eth0 -m comment --comment x -m sctp -p sctp --dport 9 -j KUBE-B
-A KUBE-A -m comment --comment x -m addrtype ! --dst-type LOCAL -m addrtype ! --src-type LOCAL -j RETURN
-A KUBE-B -s 0.0.0.0/1 -m comment --comment x -m udp -p udp -j DNAT --to-destination 10.1.1.1:53
-A KUBE-B -m comment --comment x -m sctp -p sctp -j DNAT --to-destination 10.1.1.1:9
-A KUBE-B -j MASQUERADE
COMMIT
*filter
:KUBE-C - [0:0]
-A KUBE-C -m conntrack ! --ctstate NEW,INVALID -m mark --mark 0x1 -j ACCEPT
COMMIT
"""

NFT_BASE = """\
add table ip kube-proxy
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-nodeports { type inet_proto . inet_service : verdict ; }
add set ip kube-proxy cluster-ips { type ipv4_addr ; }
add set ip kube-proxy ports { type inet_service ; }
add set ip kube-proxy affinity { type ipv4_addr ; flags dynamic,timeout ; timeout 60s ; }
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -100 ; }
add chain ip kube-proxy mark-for-masquerade
"""
NFT_SETS = {
    "service-ips": "ipv4_addr . inet_proto . inet_service",
    "service-nodeports": "inet_proto . inet_service",
    "cluster-ips": "ipv4_addr",
    "ports": "inet_service",
}
NFT = """\
add chain ip kube-proxy service-1/ns/web/tcp/p { comment "ns/web" ; }
add chain ip kube-proxy endpoint-1
add chain ip kube-proxy endpoint-2
add rule ip kube-proxy service-1/ns/web/tcp/p ip daddr 10.96.0.1 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
add rule ip kube-proxy service-1/ns/web/tcp/p ip saddr 10.244.0.0/18 jump mark-for-masquerade
add rule ip kube-proxy service-1/ns/web/tcp/p fib saddr type local jump mark-for-masquerade comment "masquerade local traffic"
add rule ip kube-proxy service-1/ns/web/tcp/p fib daddr type local drop
add rule ip kube-proxy service-1/ns/web/tcp/p ip saddr @affinity goto endpoint-1
add rule ip kube-proxy service-1/ns/web/tcp/p numgen random mod 2 vmap { 0 : goto endpoint-1 , 1 : goto endpoint-2 }
add rule ip kube-proxy endpoint-1 ip saddr 10.244.1.2 jump mark-for-masquerade
add rule ip kube-proxy endpoint-1 update @affinity { ip saddr }
add rule ip kube-proxy endpoint-1 meta l4proto tcp dnat to 10.244.1.2:8080
add rule ip kube-proxy endpoint-2 meta l4proto sctp dnat to 10.244.1.3:8080
add element ip kube-proxy service-ips { 10.96.0.1 . tcp . 80 comment "ns/web:p" : goto service-1/ns/web/tcp/p }
add element ip kube-proxy service-ips { 10.96.0.2 . udp . 53 : drop }
add element ip kube-proxy service-nodeports { tcp . 30080 comment "ns/web:p" : goto service-1/ns/web/tcp/p }
add element ip kube-proxy cluster-ips { 10.96.0.1 }
add element ip kube-proxy ports { 80 comment "http" }
"""


def dump(family: str) -> list[tuple[str, str, bytes, bytes, bytes]]:
    """Every rule: table, chain, expressions, what it is compatible with, comment."""
    with NfTablesSocket() as kernel:
        rules = [attributes(rule) for rule in kernel.dump(_GET_RULE, NFPROTO[family])]
    return [
        (_name(rule[1]), _name(rule[2]), rule[4], rule.get(5, b""), rule.get(7, b""))
        for rule in sorted(rules, key=lambda rule: (_name(rule[1]), _name(rule[2])))
    ]


def _name(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def tables(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            lines = found.setdefault(line[1:], [])
        elif line and line != "COMMIT":
            lines.append(line)
    return found


def run(*argv: str, stdin: str = "") -> str:
    return subprocess.run(argv, input=stdin, text=True, check=True, capture_output=True).stdout


def by_tool_and_by_messages(text: str, family: str) -> tuple[object, object, str, str]:
    prefix = "iptables-nft" if family == "ip" else "ip6tables-nft"
    everything = tables(text)
    run(f"{prefix}-restore", "--noflush", stdin=text)
    by_tool, saved_by_tool = dump(family), saved(prefix)
    run("nft", "flush", "ruleset")
    run(f"{prefix}-restore", "--noflush", stdin="".join(f"*{table}\n:KUBE-X - [0:0]\nCOMMIT\n" for table in everything))
    with NfTablesSocket() as kernel:
        for table, lines in everything.items():
            kernel.transact(compile_table(family, table, [*lines, "-X KUBE-X"]))
            kernel.transact(compile_table(family, table, lines))  # again: chains that are there are emptied
    return by_tool, dump(family), saved_by_tool, saved(prefix)


def saved(prefix: str) -> str:
    return "\n".join(sorted(line for line in run(f"{prefix}-save").splitlines() if not line.startswith("#")))


@pytest.mark.packet
@pytest.mark.parametrize(
    "text", [*(path.read_text() for path in GOLDEN), MORE_IPTABLES], ids=[*(p.stem for p in GOLDEN), "more"]
)
def test_iptables_rules_are_those_of_iptables_nft_restore(text):
    family = "ip6" if "fd00:" in text else "ip"
    by_tool, by_messages, saved_by_tool, saved_by_messages = isolated(by_tool_and_by_messages, text, family)
    assert saved_by_messages == saved_by_tool
    differing = [(mine, theirs) for mine, theirs in zip(by_messages, by_tool, strict=True) if mine != theirs]
    assert differing == []


def nft_both_ways(base: str, text: str) -> tuple[str, str]:
    run("nft", "-f", "-", stdin=base + text)
    by_tool = run("nft", "list", "ruleset")
    run("nft", "flush", "ruleset")
    run("nft", "-f", "-", stdin=base)
    compiler = NftCompiler("ip", "kube-proxy", NFT_SETS)
    with NfTablesSocket() as kernel:
        kernel.transact(compiler.compile(text.splitlines()))
    return by_tool, run("nft", "list", "ruleset")


@pytest.mark.packet
def test_nft_commands_leave_what_nft_leaves():
    by_tool, by_messages = isolated(nft_both_ways, NFT_BASE, NFT)
    assert by_messages == by_tool
    assert "numgen random mod 2 vmap { 0 : goto endpoint-1, 1 : goto endpoint-2 }" in by_messages


@pytest.mark.packet
def test_what_was_added_can_be_flushed_and_deleted():
    def body() -> str:
        run("nft", "-f", "-", stdin=NFT_BASE + NFT)
        gone = [
            "delete element ip kube-proxy service-ips { 10.96.0.1 . tcp . 80 }",
            "delete element ip kube-proxy service-nodeports { tcp . 30080 }",
            "flush chain ip kube-proxy service-1/ns/web/tcp/p",
            "delete chain ip kube-proxy endpoint-2",
            "delete chain ip kube-proxy service-1/ns/web/tcp/p",
        ]
        with NfTablesSocket() as kernel:
            kernel.transact(NftCompiler("ip", "kube-proxy", NFT_SETS).compile(gone))
        return run("nft", "list", "ruleset")

    left = isolated(body)
    assert "service-1" not in left
    assert "endpoint-2" not in left
    assert "endpoint-1" in left


@pytest.mark.packet
def test_a_refused_transaction_names_its_command_and_changes_nothing():
    def body() -> tuple[int, str, str]:
        run("nft", "-f", "-", stdin=NFT_BASE)
        before = run("nft", "list", "ruleset")
        commands = [
            "add chain ip kube-proxy new",
            "add rule ip kube-proxy new jump nowhere",
            "add chain ip kube-proxy b",
        ]
        with NfTablesSocket() as kernel:
            try:
                kernel.transact(NftCompiler("ip", "kube-proxy", NFT_SETS).compile(commands))
            except NetlinkError as error:
                assert run("nft", "list", "ruleset") == before
                return error.errno or 0, error.origin, str(error)
        raise AssertionError("it was taken")

    number, origin, sentence = isolated(body)
    assert (number, origin) == (errno.ENOENT, "add rule ip kube-proxy new jump nowhere")
    assert sentence == "No such file or directory: add rule ip kube-proxy new jump nowhere"


@pytest.mark.packet
def test_a_loop_is_refused():
    def body() -> tuple[int, str]:
        run("nft", "-f", "-", stdin=NFT_BASE)
        commands = [
            "add chain ip kube-proxy a",
            "add chain ip kube-proxy b",
            "add rule ip kube-proxy a jump b",
            "add rule ip kube-proxy b jump a",
            "add rule ip kube-proxy nat-prerouting jump a",
        ]
        with NfTablesSocket() as kernel:
            try:
                kernel.transact(NftCompiler("ip", "kube-proxy", NFT_SETS).compile(commands))
            except NetlinkError as error:
                return error.errno or 0, error.origin
        raise AssertionError("it was taken")

    number, origin = isolated(body)
    assert number in (errno.ELOOP, errno.EMLINK)
    assert origin in ("the commit", "add rule ip kube-proxy nat-prerouting jump a"), "depends on the kernel"


@pytest.mark.parametrize(
    "line",
    [
        ":PREROUTING ACCEPT [0:0]",
        "-A PREROUTING -j KUBE-SERVICES",
        "-I KUBE-SERVICES -j KUBE-A",
        "-A KUBE-A -m limit --limit 1/s -j RETURN",
        "-A KUBE-A -m comment --comment x -j LOG",
        "-A KUBE-A -j REJECT --reject-with tcp-reset",
        "-A KUBE-A -p icmp -j DROP",
    ],
)
def test_iptables_lines_that_are_not_understood_are_left_to_the_tool(line):
    with pytest.raises(Unsupported, match=r"PREROUTING|KUBE"):
        compile_table("ip", "nat", [line])


@pytest.mark.parametrize(
    "command",
    [
        "add table ip kube-proxy",
        "add chain ip kube-proxy a { type nat hook prerouting priority -100 ; }",
        "add chain ip other a",
        "add rule ip kube-proxy a ct state new counter",
        "add rule ip kube-proxy a ip6 saddr fd00::1 drop",
        "add rule ip kube-proxy a numgen inc mod 2 vmap { 0 : goto b }",
        "add element ip kube-proxy no-such-set { 10.0.0.1 }",
        "add element ip kube-proxy cluster-ips { 10.0.0.1, 10.0.0.2 }",
        "add element ip kube-proxy service-ips { 10.0.0.1 }",
    ],
)
def test_nft_commands_that_are_not_understood_are_left_to_nft(command):
    with pytest.raises(Unsupported):
        NftCompiler("ip", "kube-proxy", NFT_SETS).compile([command])
