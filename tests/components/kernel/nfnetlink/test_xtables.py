"""iptables rules as values: the words of each match and target, and the order in which nf_tables gets them."""

from __future__ import annotations

import dataclasses

import pytest

from kubewire.components.kernel.nfnetlink import expressions as ex
from kubewire.components.kernel.nfnetlink import xtables as xt
from kubewire.components.kernel.nfnetlink.netlink import attributes
from kubewire.components.kernel.nfnetlink.xtables import Rule

EXPRESSIONS, COMPATIBLE = 4, 5
WORDS = {
    xt.Comment("ns/web:http"): "-m comment --comment ns/web:http",
    xt.Comment("ns/web cluster IP"): '-m comment --comment "ns/web cluster IP"',
    xt.Source("10.244.0.0/16", negated=True): "! -s 10.244.0.0/16",
    xt.Destination("fd00::1"): "-d fd00::1",
    xt.InInterface("cni0"): "-i cni0",
    xt.OutInterface("veth+", negated=True): "! -o veth+",
    xt.OfProtocol("udp"): "-p udp",
    xt.Transport("tcp"): "-m tcp -p tcp",
    xt.Transport("sctp", 9): "-m sctp -p sctp --dport 9",
    xt.Transport("tcp", 80, "10.96.0.1"): "-m tcp -p tcp -d 10.96.0.1 --dport 80",
    xt.FromThisHost(): "-m addrtype --src-type LOCAL",
    xt.ToThisHost(negated=True): "-m addrtype ! --dst-type LOCAL",
    xt.Random(1 / 3): "-m statistic --mode random --probability 0.3333333333",
    xt.Recent("KUBE-SEP-A", 10800): "-m recent --name KUBE-SEP-A --rcheck --seconds 10800 --reap",
    xt.Recent("KUBE-SEP-A"): "-m recent --name KUBE-SEP-A --set",
    xt.ConnectionState(("NEW", "INVALID"), negated=True): "-m conntrack ! --ctstate NEW,INVALID",
    xt.Mark(0x4000, 0x4000): "-m mark --mark 0x4000/0x4000",
    xt.Mark(1, negated=True): "-m mark ! --mark 0x1",
    xt.Words("-m set --match-set pods src"): "-m set --match-set pods src",
    xt.ACCEPT: "-j ACCEPT",
    xt.Jump("KUBE-A"): "-j KUBE-A",
    xt.Reject(): "-j REJECT",
    xt.ChangeMark("or", 0x4000): "-j MARK --or-mark 0x4000",
    xt.ChangeMark("xor", 0x4000): "-j MARK --xor-mark 0x4000",
    xt.Dnat("10.1.1.1", 53): "-j DNAT --to-destination 10.1.1.1:53",
    xt.Dnat("fd00::1", 53): "-j DNAT --to-destination [fd00::1]:53",
    xt.Masquerade(): "-j MASQUERADE",
    xt.Masquerade(random_fully=True): "-j MASQUERADE --random-fully",
}


@pytest.mark.parametrize(("value", "words"), WORDS.items(), ids=WORDS.values())
def test_each_value_has_iptables_words(value: xt.Match | xt.Target, words: str) -> None:
    assert value.text() == words


def test_every_match_and_target_is_in_this_table() -> None:
    classes = {value for name, value in vars(xt).items() if isinstance(value, type) and name[0] != "_"}
    public = {value for value in classes if dataclasses.is_dataclass(value)}
    assert public - {type(value) for value in WORDS} == {Rule}


def test_the_text_keeps_the_order_of_a_rule_and_the_message_has_that_of_iptables() -> None:
    comment, source = xt.Comment("x"), xt.Source("10.244.0.0/16")
    to, interface = xt.Transport("tcp", 80, "10.96.0.1"), xt.InInterface("cni0")
    rule = Rule((comment, to, source, interface), xt.Jump("KUBE-A"))
    assert str(rule) == f"{comment.text()} {to.text()} {source.text()} {interface.text()} -j KUBE-A"
    sent = attributes(rule.attributes("ip"))[EXPRESSIONS]
    parts = [
        ex.compare(b"cni0\0"),
        ex.compare(b"\x06"),
        ex.network("ip", "saddr", "10.244.0.0/16"),
        ex.network("ip", "daddr", "10.96.0.1"),
        b"comment",
        ex.payload(ex.TRANSPORT_HEADER, 2, 2) + ex.compare(b"\x00\x50"),
        ex.counter(),
        ex.immediate_verdict("jump", "KUBE-A"),
    ]
    places = [sent.index(part) for part in parts]
    assert places == sorted(places)


def test_a_rule_says_its_protocol_to_extensions_only_when_it_has_one() -> None:
    assert COMPATIBLE not in attributes(Rule((xt.Comment("x"),), xt.DROP).attributes("ip"))
    assert attributes(attributes(Rule((xt.Transport("udp"),)).attributes("ip"))[COMPATIBLE])[1] == b"\0\0\0\x11"


def test_a_comment_that_iptables_would_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="256 bytes"):
        xt.Comment("x" * 256).expressions("ip")
