"""flannel's rules in upstream's words, and the transaction that sets right what differs."""

import ipaddress

import pytest

from kubewire.components.kernel.iptables import parse, transaction
from kubewire.components.networks.flannel.rules import forward, masquerade

NETWORK, SUBNET = ipaddress.IPv4Network("10.244.0.0/16"), ipaddress.IPv4Network("10.244.1.0/24")
RULES = masquerade(NETWORK, SUBNET) | forward(NETWORK)

EMPTY = """\
*nat
:POSTROUTING ACCEPT [0:0]
COMMIT
*filter
:FORWARD DROP [0:0]
COMMIT
"""

SAVED = """\
*nat
:POSTROUTING ACCEPT [0:0]
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FORWARD DROP [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""


def test_the_rules_are_upstreams():
    saved = parse(SAVED)
    for chain, lead in zip(RULES.chains, RULES.leads, strict=True):
        assert saved[chain.table].of(chain.name) == [*map(str, chain.rules)]
        assert saved[lead.table].of(lead.chain) == [*map(str, lead.rules)]
    assert transaction(RULES, saved) == ""


NETWORK6, SUBNET6 = ipaddress.IPv6Network("fd00:10:244::/56"), ipaddress.IPv6Network("fd00:10:244:1::/64")
GOLDEN = {
    "rules": RULES,
    "rules-ipv6": masquerade(NETWORK6, SUBNET6) | forward(NETWORK6),
    "rules-without-random-fully": masquerade(NETWORK, SUBNET, random_fully=False) | forward(NETWORK),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_rules_are_those_of_the_golden_file(name, golden):
    golden(f"flannel/{name}.txt", transaction(GOLDEN[name], {}))


def test_on_an_empty_kernel_everything_is_made_in_one_transaction():
    text = transaction(RULES, parse(EMPTY))
    assert text.count("COMMIT\n") == 2
    assert set(SAVED.splitlines()) - set(text.splitlines()) == {
        ":POSTROUTING ACCEPT [0:0]",
        ":FORWARD DROP [0:0]",
    }


def test_a_changed_rule_rewrites_its_chain_and_leaves_the_jump():
    changed = SAVED.replace('-d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT', "-j DROP")
    assert transaction(RULES, parse(changed)).splitlines() == [
        "*filter",
        ":FLANNEL-FWD - [0:0]",
        *(f"-A FLANNEL-FWD {rule}" for rule in RULES.chains[1].rules),
        "COMMIT",
    ]


def test_a_doubled_jump_is_reduced_to_one():
    jump = f"-A FORWARD {RULES.leads[1].rules[0]}"
    text = transaction(RULES, parse(SAVED.replace(jump, f"{jump}\n{jump}")))
    assert f"-D{jump[2:]}\n" in text and f"{jump}\n" not in text


def test_the_transaction_does_not_name_other_chains():
    names = {line for line in transaction(RULES, {}).splitlines() if line.startswith(":")}
    assert names == {":FLANNEL-POSTRTG - [0:0]", ":FLANNEL-FWD - [0:0]"}
