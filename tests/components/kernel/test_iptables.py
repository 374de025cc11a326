"""The transaction from saved rules to wanted ones, and what each agent wants, in the kernel."""

from __future__ import annotations

import asyncio
import subprocess
from ipaddress import IPv4Network, IPv6Network

import pytest

from kubewire.components.kernel import iproute, ipset, iptables
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.iptables import Chain, Lead, Ruleset, parse, transaction
from kubewire.components.networks.aws_vpc_cni import dataplane as aws
from kubewire.components.networks.aws_vpc_cni.environment import Configuration
from kubewire.components.networks.azure_cni import masquerade as azure
from kubewire.components.networks.calico import dataplane as calico
from kubewire.components.networks.flannel import rules as flannel
from kubewire.components.networks.weave import dataplane as weave
from kubewire.components.networks.weave.ipsec import Association
from tests.components.networks.calico.store import pool
from tests.scratch import isolated

OURS = Chain("nat", "OURS", ("-s 10.0.0.0/8 -j RETURN", "-j MASQUERADE"))
JUMP = Lead("nat", "POSTROUTING", ("-j OURS",))
BOTH = Lead("nat", "POSTROUTING", ("-i a -j OURS", "-i b -j OURS"), at_head=True)
SAVED = """\
*nat
:POSTROUTING ACCEPT [0:0]
:OURS - [0:0]
:OURS-TOO - [0:0]
-A POSTROUTING -j OURS
-A OURS -s 10.0.0.0/8 -j RETURN
-A OURS -j MASQUERADE
-A OURS-TOO -j ACCEPT
COMMIT
"""


@pytest.mark.parametrize(
    ("wanted", "saved", "lines"),
    [
        pytest.param(Ruleset((OURS,), (JUMP,)), SAVED, [], id="what is right is left alone"),
        pytest.param(Ruleset((OURS,)), "", [":OURS - [0:0]", *(f"-A OURS {rule}" for rule in OURS.rules)], id="new"),
        pytest.param(
            Ruleset((OURS,), (JUMP,)),
            SAVED.replace("-A OURS -j MASQUERADE\n", ""),
            [":OURS - [0:0]", *(f"-A OURS {rule}" for rule in OURS.rules)],
            id="a chain that has lost a rule is written as a whole, its jump is not",
        ),
        pytest.param(
            Ruleset((OURS,), (JUMP,)),
            SAVED.replace("-A POSTROUTING -j OURS\n", ""),
            ["-A POSTROUTING -j OURS"],
            id="a lost jump alone",
        ),
        pytest.param(
            Ruleset((), (JUMP,)),
            SAVED.replace("-A POSTROUTING -j OURS\n", "-A POSTROUTING -j OURS\n" * 3),
            ["-D POSTROUTING -j OURS"] * 2,
            id="doubles go",
        ),
        pytest.param(Ruleset((Chain("nat", "EMPTY", ()),)), SAVED, [":EMPTY - [0:0]"], id="an empty chain is made"),
        pytest.param(Ruleset((Chain("nat", "OURS", ()),)), SAVED, [":OURS - [0:0]"], id="and emptied"),
        pytest.param(
            Ruleset((), (BOTH,)),
            "*nat\n-A POSTROUTING -j X\n-A POSTROUTING -i b -j OURS\nCOMMIT\n",
            [
                "-D POSTROUTING -i b -j OURS",
                "-I POSTROUTING 1 -i a -j OURS",
                "-I POSTROUTING 2 -i b -j OURS",
            ],
            id="rules at the head keep their order",
        ),
        pytest.param(
            Ruleset((Chain("nat", "OURS", ("-s 10.0.0.7 -d fd00::1 -j RETURN",)),)),
            SAVED.replace("-s 10.0.0.0/8 -j RETURN\n-A OURS -j MASQUERADE", "-s 10.0.0.7/32 -d fd00::1/128 -j RETURN"),
            [],
            id="an address has its prefix length",
        ),
    ],
)
def test_a_transaction(wanted: Ruleset, saved: str, lines: list[str]) -> None:
    expected = ["*nat", *lines, "COMMIT"] if lines else []
    assert transaction(wanted, parse(saved)).splitlines() == expected


POOLS = [pool("10.244.0.0/16", natOutgoing=True), pool("fd00:10:244::/56", "six", natOutgoing=True)]
ASSOCIATION = Association("172.18.0.3", "172.18.0.2", 0x1234, "ab" * 36)
SUBNET = IPv4Network("10.32.0.0/12")
AGENTS = {
    "flannel": (
        flannel.masquerade(IPv4Network("10.244.0.0/16"), IPv4Network("10.244.1.0/24"))
        | flannel.forward(IPv4Network("10.244.0.0/16")),
        4,
    ),
    "flannel, IPv6": (
        flannel.masquerade(IPv6Network("fd00:10:244::/56"), IPv6Network("fd00:10:244:1::/64"))
        | flannel.forward(IPv6Network("fd00:10:244::/56")),
        6,
    ),
    "calico": (calico.rules(POOLS, [calico.VXLAN, calico.IPIP]), 4),
    "calico, IPv6": (calico.rules(POOLS, [calico.VXLAN6], calico.IPV6), 6),
    "weave": (weave.rules(SUBNET, None), 4),
    "weave, encrypted": (weave.rules(SUBNET, [ASSOCIATION]), 4),
    "aws-vpc": (aws.rules("172.18.0.0/16", "172.18.0.3", "eth0", Configuration()), 4),
    "azure": (azure.rules(["172.18.0.0/16", "10.244.0.0/16"]), 4),
}


async def twice(wanted: Ruleset, version: int) -> None:
    await ipset.restore(calico.ipsets(POOLS) + calico.ipsets(POOLS, calico.IPV6) + weave.own_set([]))
    assert await iptables.ensure(wanted, version)
    before = await iptables.save(version)
    assert not await iptables.ensure(wanted, version), "iptables-save prints a rule otherwise than the agent writes it"
    for chain in wanted.chains:
        await iptables.restore(f"*{chain.table}\n-F {chain.name}\nCOMMIT\n", version)
    for lead in wanted.leads:
        await iptables.restore(f"*{lead.table}\n-F {lead.chain}\nCOMMIT\n", version)
    await iptables.ensure(wanted, version)
    after = await iptables.save(version)
    assert {name: sorted(table.rules) for name, table in before.items()} == {
        name: sorted(table.rules) for name, table in after.items()
    }


@pytest.mark.packet
@pytest.mark.parametrize("agent", AGENTS)
def test_what_an_agent_wants_is_written_once_and_repaired(agent: str) -> None:
    isolated(lambda: asyncio.run(twice(*AGENTS[agent])))


async def refused() -> str:
    try:
        await iptables.restore("*nat\n:OURS - [0:0]\n-A OURS -j NOWHERE\nCOMMIT\n")
    except CommandError as error:
        return str(error)
    return ""


@pytest.mark.packet
def test_a_rule_that_is_refused_names_its_line_and_leaves_nothing() -> None:
    def body() -> tuple[str, str]:
        said = asyncio.run(refused())
        return said, subprocess.check_output(["iptables-save", "-t", "nat"], text=True)

    said, saved = isolated(body)
    assert "iptables-restore" in said and "line" in said
    assert "OURS" not in saved


def test_a_set_is_never_empty_in_between() -> None:
    lines = ipset.replacement("pods", "hash:net", ["10.0.0.0/8"])
    assert iproute.text(lines).index("add pods-tmp 10.0.0.0/8") < iproute.text(lines).index("swap pods pods-tmp")
    assert "flush pods" not in lines


def test_chains_of_ours_that_are_not_wanted_any_more_are_deleted():
    saved = parse("*filter\n:OURS-OLD - [0:0]\n:OURS - [0:0]\n:THEIRS - [0:0]\n-A OURS -j OURS-OLD\nCOMMIT\n")
    wanted = Ruleset((Chain("filter", "OURS", ()),), owned=(("filter", "OURS"),))
    assert transaction(wanted, saved).splitlines() == [
        "*filter",
        ":OURS - [0:0]",
        ":OURS-OLD - [0:0]",
        "-X OURS-OLD",
        "COMMIT",
    ]
    assert transaction(wanted, parse("*filter\n:OURS - [0:0]\nCOMMIT\n")) == ""


@pytest.mark.parametrize(
    ("nf_tables", "expected"), [(True, [1, 2, 3]), (False, [1, 2, 3, 4, 5])], ids=["nf_tables", "legacy"]
)
def test_a_change_during_the_look_is_looked_at_again(nf_tables, expected, monkeypatch):
    """Rules that another program flushes while ours are being made are made at the next look."""
    kernel, looks, ticks = {"generation": 7}, [], []

    async def pause(seconds):
        ticks.append(seconds)
        if len(ticks) > 5:
            raise asyncio.CancelledError

    async def make():
        looks.append(len(ticks))
        if len(looks) <= 2:
            kernel["generation"] += 1  # ours at first, then that of another program

    monkeypatch.setattr(iptables, "generation", lambda: kernel["generation"])
    monkeypatch.setattr(iptables, "is_nf_tables", lambda: nf_tables)
    monkeypatch.setattr(asyncio, "sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(iptables.keep(make, 5.0))
    assert looks == expected
