"""The kernel cannot tell our messages from the tools': what it dumps afterwards is the same, byte for byte."""

from __future__ import annotations

import errno
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kubewire.components.kernel.nfnetlink import expressions as ex
from kubewire.components.kernel.nfnetlink import tables
from kubewire.components.kernel.nfnetlink.iptables import Append, TableChange, restore_input
from kubewire.components.kernel.nfnetlink.netlink import Message, NetlinkError, NfTablesSocket, attributes
from kubewire.components.kernel.nfnetlink.tables import NFPROTO, Table
from kubewire.components.kernel.nfnetlink.xtables import (
    ACCEPT,
    RETURN,
    Comment,
    ConnectionState,
    Dnat,
    FromThisHost,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    Match,
    OutInterface,
    Rule,
    Source,
    Target,
    ToThisHost,
    Transport,
    Unsupported,
    Words,
)
from kubewire.components.kube_proxy.iptables import rules as kube_proxy
from tests.components.kube_proxy import test_rules
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


def rule(*matches: Match, to: Target) -> Rule:
    return Rule(matches, to)


X = Comment("x")
MORE_VALUES = [
    TableChange(
        "nat",
        ["KUBE-A", "KUBE-B"],
        rules=[
            Append(
                "KUBE-A",
                rule(
                    InInterface("cni0"),
                    Comment("ns/a:b cluster IP"),
                    Transport("udp", 53, "10.96.0.1"),
                    Source("10.244.0.0/18", negated=True),
                    to=Jump("KUBE-B"),
                ),
            ),
            Append(
                "KUBE-A",
                rule(
                    InInterface("veth+", negated=True), OutInterface("eth0"), X, Transport("sctp", 9), to=Jump("KUBE-B")
                ),
            ),
            Append("KUBE-A", rule(X, ToThisHost(negated=True), FromThisHost(negated=True), to=RETURN)),
            Append("KUBE-B", rule(Source("0.0.0.0/1"), X, Transport("udp"), to=Dnat("10.1.1.1", 53))),
            Append("KUBE-B", rule(X, Transport("sctp"), to=Dnat("10.1.1.1", 9))),
            Append("KUBE-B", rule(to=Masquerade())),
        ],
    ),
    TableChange(
        "filter",
        ["KUBE-C"],
        rules=[Append("KUBE-C", rule(ConnectionState(("NEW", "INVALID"), negated=True), Mark(1), to=ACCEPT))],
    ),
]


def golden_values(case: str) -> list[TableChange]:
    """The values that kube-proxy writes in the case of a golden file."""
    services, endpoints, config = test_rules.CASES[case]
    plan = kube_proxy.Plan()
    plan.update(services, endpoints, test_rules.NODE, config)
    return plan.everything()


NFT_BASE = """\
add table FAMILY kube-proxy
add map FAMILY kube-proxy service-ips { type ADDR . inet_proto . inet_service : verdict ; }
add map FAMILY kube-proxy service-nodeports { type inet_proto . inet_service : verdict ; }
add set FAMILY kube-proxy cluster-ips { type ADDR ; }
add set FAMILY kube-proxy hairpin-connections { type ADDR . ADDR . inet_proto . inet_service ; }
add set FAMILY kube-proxy ports { type inet_service ; }
add chain FAMILY kube-proxy nat-prerouting { type nat hook prerouting priority -100 ; }
add chain FAMILY kube-proxy marking
add chain FAMILY kube-proxy a
add chain FAMILY kube-proxy b
"""
NFT = """\
add chain FAMILY kube-proxy service-1/ns/web/tcp/p { comment "ns/web" ; }
add set FAMILY kube-proxy affinity-1 { type ADDR ; flags dynamic,timeout ; timeout 10800s ; }
add rule FAMILY kube-proxy a FAMILY saddr @affinity-1 goto b
add rule FAMILY kube-proxy a FAMILY saddr != @affinity-1 drop
add rule FAMILY kube-proxy a numgen random mod 3 vmap { 0 : goto b , 1 : jump marking , 2 : drop }
add rule FAMILY kube-proxy a update @affinity-1 { FAMILY saddr }
add rule FAMILY kube-proxy a fib saddr type local mark set mark or 0x00004000 comment "masquerade local traffic"
add rule FAMILY kube-proxy a iifname "cni0" accept
add rule FAMILY kube-proxy a iifname != "veth*" return
add rule FAMILY kube-proxy b meta l4proto tcp dnat to TARGET:8080
add rule FAMILY kube-proxy b meta l4proto udp dnat FAMILY addr . port to numgen random mod 2 map { 0 : POD1 . 53 , 1 : POD2 . 54 }
add element FAMILY kube-proxy service-ips { VIP . tcp . 80 : goto service-1/ns/web/tcp/p }
add element FAMILY kube-proxy service-ips { VIP . udp . 53 comment "ns/dns:dns" : drop }
add element FAMILY kube-proxy service-nodeports { sctp . 30080 : goto a }
add element FAMILY kube-proxy cluster-ips { VIP }
add element FAMILY kube-proxy hairpin-connections { POD1 . POD1 . tcp . 8080 }
add element FAMILY kube-proxy ports { 80 comment "http" }
"""
#: FAMILY and the words that differ
FAMILIES = {
    "ip": {"ADDR": "ipv4_addr", "TARGET": "10.1.1.1", "POD1": "10.1.1.1", "POD2": "10.1.1.2", "VIP": "10.96.0.1"},
    "ip6": {"ADDR": "ipv6_addr", "TARGET": "[fd00::1]", "POD1": "fd00::1", "POD2": "fd00::2", "VIP": "fd00:96::1"},
}


def in_family(text: str, family: str) -> str:
    for word, value in {"FAMILY": family, **FAMILIES[family]}.items():
        text = text.replace(word, value)
    return text


def nft_messages(table: Table) -> list[Message]:
    """NFT as messages."""
    words, protocol = FAMILIES[table.family], NFPROTO[table.family]
    source = ex.payload(ex.NETWORK_HEADER, *{"ip": (12, 4), "ip6": (8, 16)}[table.family])
    verdicts, choose = table.verdict_map([("goto", "b"), ("jump", "marking"), ("drop", "")])
    pod1, pod2 = ex.address(words["POD1"]), ex.address(words["POD2"])
    endpoints, translate = table.endpoint_map([(pod1, 53), (pod2, 54)])
    web = "service-1/ns/web/tcp/p"
    mark = [ex.meta(ex.META_MARK), ex.bitwise(b"\xff\xbf\xff\xff", b"\0\x40\0\0"), ex.meta_set(ex.META_MARK)]
    local = [ex.fib_address_type(ex.FIB_SADDR), ex.compare(b"\2\0\0\0")]
    to_pod = [ex.immediate(pod1, 1), ex.immediate((8080).to_bytes(2, "big"), 2), ex.dnat(protocol, with_port=True)]
    tcp, udp = ([ex.meta(ex.META_L4PROTO), ex.compare(bytes([number]))] for number in (6, 17))
    return [
        table.add_chain(web, "ns/web"),
        table.add_affinity_set("affinity-1", 10800),
        table.add_rule("a", [source, ex.lookup("affinity-1"), ex.immediate_verdict("goto", "b")]),
        table.add_rule("a", [source, ex.lookup("affinity-1", inverted=True), ex.immediate_verdict("drop")]),
        *verdicts,
        table.add_rule("a", [ex.numgen_random(3), choose]),
        table.add_rule("a", [source, ex.dynset_update("affinity-1")]),
        table.add_rule("a", [*local, *mark], "masquerade local traffic"),
        table.add_rule(
            "a", [ex.meta(ex.META_IIFNAME), ex.compare(b"cni0".ljust(16, b"\0")), ex.immediate_verdict("accept")]
        ),
        table.add_rule(
            "a", [ex.meta(ex.META_IIFNAME), ex.compare(b"veth", ex.NOT_EQUAL), ex.immediate_verdict("return")]
        ),
        table.add_rule("b", [*tcp, *to_pod]),
        *endpoints,
        table.add_rule("b", [*udp, ex.numgen_random(2), translate, ex.dnat_from_map(protocol)]),
        *table.add_elements("service-ips", [tables.element(tables.key([words["VIP"], "tcp", "80"]), ("goto", web))]),
        *table.add_elements(
            "service-ips", [tables.element(tables.key([words["VIP"], "udp", "53"]), ("drop", ""), "ns/dns:dns")]
        ),
        *table.add_elements("service-nodeports", [tables.element(tables.key(["sctp", "30080"]), ("goto", "a"))]),
        *table.add_elements("cluster-ips", [tables.element(tables.key([words["VIP"]]))]),
        *table.add_elements(
            "hairpin-connections", [tables.element(tables.key([words["POD1"], words["POD1"], "tcp", "8080"]))]
        ),
        *table.add_elements("ports", [tables.element(tables.key(["80"]), comment="http")]),
    ]


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


def run(*argv: str, stdin: str = "") -> str:
    done = subprocess.run(argv, input=stdin, text=True, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def by_tool_and_by_messages(text: str, changes: list[TableChange], family: str) -> tuple[object, object, str, str]:
    prefix = "iptables-nft" if family == "ip" else "ip6tables-nft"
    changes = [change for change in changes if change]
    run(f"{prefix}-restore", "--noflush", stdin=text)
    by_tool, saved_by_tool = dump(family), saved(prefix)
    run("nft", "flush", "ruleset")
    run(f"{prefix}-restore", "--noflush", stdin=restore_input(TableChange(item.table, ["KUBE-X"]) for item in changes))
    with NfTablesSocket() as kernel:
        for change in changes:
            kernel.transact(replace(change, deleted=["KUBE-X"]).messages(family))
            kernel.transact(change.messages(family))  # again: chains that are there are emptied
    return by_tool, dump(family), saved_by_tool, saved(prefix)


def saved(prefix: str) -> str:
    return "\n".join(sorted(line for line in run(f"{prefix}-save").splitlines() if not line.startswith("#")))


@pytest.mark.packet
@pytest.mark.parametrize(
    ("text", "changes"),
    [*((path.read_text(), golden_values(path.stem)) for path in GOLDEN), (MORE_IPTABLES, MORE_VALUES)],
    ids=[*(p.stem for p in GOLDEN), "more"],
)
def test_iptables_rules_are_those_of_iptables_nft_restore(text, changes):
    family = "ip6" if "fd00:" in text else "ip"
    assert restore_input(changes) == text
    by_tool, by_messages, saved_by_tool, saved_by_messages = isolated(by_tool_and_by_messages, text, changes, family)
    assert saved_by_messages == saved_by_tool
    differing = [(mine, theirs) for mine, theirs in zip(by_messages, by_tool, strict=True) if mine != theirs]
    assert differing == []


def nft_both_ways(family: str) -> tuple[str, str, object, object]:
    base, text = in_family(NFT_BASE, family), in_family(NFT, family)
    run("nft", "-f", "-", stdin=base + text)
    by_tool, rules_by_tool = run("nft", "list", "ruleset"), dump(family)
    run("nft", "flush", "ruleset")
    run("nft", "-f", "-", stdin=base)
    with NfTablesSocket() as kernel:
        kernel.transact(nft_messages(Table(family, "kube-proxy")))
    return by_tool, run("nft", "list", "ruleset"), rules_by_tool, dump(family)


@pytest.mark.packet
@pytest.mark.parametrize("family", FAMILIES)
def test_nft_commands_leave_what_nft_leaves(family):
    by_tool, by_messages, rules_by_tool, rules_by_messages = isolated(nft_both_ways, family)
    assert by_messages == by_tool
    assert "numgen random mod 3 vmap { 0 : goto b, 1 : jump marking, 2 : drop }" in by_messages
    # Anonymous maps are named otherwise, and stand in a rule by their names.
    comparable = [index for index, rule in enumerate(rules_by_tool) if b"__map" not in rule[2]]
    assert len(comparable) == len(rules_by_tool) - 2
    assert [rules_by_messages[index] for index in comparable] == [rules_by_tool[index] for index in comparable]


@pytest.mark.packet
def test_what_was_added_can_be_flushed_and_deleted():
    def body() -> str:
        run("nft", "-f", "-", stdin=in_family(NFT_BASE, "ip"))
        table, web = Table("ip", "kube-proxy"), "service-1/ns/web/tcp/p"
        with NfTablesSocket() as kernel:
            kernel.transact(nft_messages(table))
            gone = [tables.element(tables.key(["10.96.0.1", "tcp", "80"]))]
            kernel.transact(
                [
                    *table.delete_elements("service-ips", gone),
                    table.delete_chain(web),
                    table.flush_chain("a"),
                    table.delete_set("affinity-1"),
                ]
            )
        return run("nft", "list", "ruleset")

    left = isolated(body)
    for gone in ("service-1", "affinity-1", "__map", "tcp . 80 :"):
        assert gone not in left
    assert "dnat to 10.1.1.1:8080" in left


@pytest.mark.packet
def test_thousands_of_elements_are_taken_at_once():
    def body() -> int:
        run("nft", "-f", "-", stdin=in_family(NFT_BASE, "ip"))
        table = Table("ip", "kube-proxy")
        verdicts, choose = table.verdict_map([("goto", "b")] * 3000)
        elements = [tables.element(tables.key([f"10.96.{i // 250}.{i % 250}"]), comment="x" * 60) for i in range(3000)]
        with NfTablesSocket() as kernel:
            kernel.transact([*verdicts, table.add_rule("a", [ex.numgen_random(3000), choose])])
            kernel.transact(table.add_elements("cluster-ips", elements))
        listed = run("nft", "list", "ruleset")
        return listed.count("goto b") + listed.count("10.96.")

    assert isolated(body) == 6000


@pytest.mark.packet
def test_a_refused_transaction_names_its_command_and_changes_nothing():
    def body() -> tuple[int, str, str]:
        run("nft", "-f", "-", stdin=in_family(NFT_BASE, "ip"))
        before, table = run("nft", "list", "ruleset"), Table("ip", "kube-proxy")
        commands = [
            table.add_chain("new", origin="chain new"),
            table.add_rule("new", [ex.immediate_verdict("jump", "nowhere")], origin="jump nowhere"),
            table.add_chain("other", origin="chain other"),
        ]
        with NfTablesSocket() as kernel:
            try:
                kernel.transact(commands)
            except NetlinkError as error:
                assert run("nft", "list", "ruleset") == before
                return error.errno or 0, str(error.origin), str(error)
        raise AssertionError("it was taken")

    number, origin, sentence = isolated(body)
    assert (number, origin) == (errno.ENOENT, "jump nowhere")
    assert sentence == "No such file or directory: jump nowhere"


@pytest.mark.packet
def test_a_loop_is_refused():
    def body() -> tuple[int, str]:
        run("nft", "-f", "-", stdin=in_family(NFT_BASE, "ip"))
        table = Table("ip", "kube-proxy")
        jumps = [("a", "b"), ("b", "a"), ("nat-prerouting", "a")]
        commands = [table.add_rule(chain, [ex.immediate_verdict("jump", to)], origin=chain) for chain, to in jumps]
        with NfTablesSocket() as kernel:
            try:
                kernel.transact(commands)
            except NetlinkError as error:
                return error.errno or 0, str(error.origin)
        raise AssertionError("it was taken")

    number, origin = isolated(body)
    assert number in (errno.ELOOP, errno.EMLINK)
    assert origin in ("the commit", "nat-prerouting"), "depends on the kernel"


RETURNING = Append("KUBE-SERVICES", Rule((), RETURN))
CHANGE = TableChange(
    "nat", ["KUBE-SERVICES"], [Append("PREROUTING", Rule((), Jump("KUBE-SERVICES")))], [RETURNING], ["KUBE-OLD"]
)


def test_jumps_from_built_in_chains_are_left_to_the_tool():
    assert restore_input([CHANGE, TableChange("mangle")]) == (
        "*nat\n:KUBE-SERVICES - [0:0]\n-I PREROUTING 1 -j KUBE-SERVICES\n-A KUBE-SERVICES -j RETURN\n-X KUBE-OLD\nCOMMIT\n"
    )
    told = [str(message.origin) for message in CHANGE.messages("ip")]
    assert told == ["*nat", *[":KUBE-SERVICES"] * 2, "-A KUBE-SERVICES -j RETURN", "-X KUBE-OLD"]
    left = restore_input([CHANGE.for_the_tool(), TableChange("mangle", ["KUBE-PROXY-CANARY"]).for_the_tool()])
    assert left == "*nat\n-I PREROUTING 1 -j KUBE-SERVICES\nCOMMIT\n"


@pytest.mark.parametrize("match", [Words("-m set --match-set A dst"), Words("-m physdev ! --physdev-is-in")], ids=repr)
def test_matches_without_a_message_are_left_to_the_tool(match):
    change = TableChange("nat", rules=[Append("KUBE-A", Rule((match,), RETURN))])
    with pytest.raises(Unsupported, match=re.escape(match.text())):
        list(change.messages("ip"))
