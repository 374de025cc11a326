"""What iptables-save says is there: chains per table and which of our jumps exist. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubewire.components.kernel.iptables import Table
from kubewire.components.kube_proxy.iptables import chains
from kubewire.components.kube_proxy.iptables.chains import Jump


def missing_jumps(tables: dict[str, Table], wanted: Iterable[Jump]) -> list[Jump]:
    return [
        jump for jump in wanted if not any(_is(rule, jump) for rule in _rules(tables, jump.table))
    ]


def _rules(tables: dict[str, Table], table: str) -> list[str]:
    return tables[table].rules if table in tables else []


def _is(rule: str, jump: Jump) -> bool:
    # The order of matches in the output is the tool's business, so compare the parts that name the
    # rule.
    comment = f'--comment "{jump.comment}"' in rule if jump.comment else "--comment" not in rule
    return rule.startswith(f"-A {jump.source} ") and rule.endswith(f" -j {jump.target}") and comment


def stale_chains(tables: dict[str, Table], needed: frozenset[str]) -> list[str]:
    """Per-Service chains in nat that no Service needs; chains of others never appear."""
    present = tables["nat"].chains if "nat" in tables else set()
    return sorted(chain for chain in present - needed if chains.is_service_chain(chain))


def missing_canaries(tables: dict[str, Table]) -> list[str]:
    return [
        table
        for table in chains.CANARY_TABLES
        if table not in tables or chains.CANARY not in tables[table].chains
    ]


def cleanup_text(
    tables: dict[str, Table], base: Mapping[str, tuple[str, ...]] = chains.BASE_CHAINS
) -> str:
    """Restore input that takes away everything kube-proxy made and leaves the kubelet's chains.
    base: a mode's own chains by table."""
    out: list[str] = []
    for name, table in tables.items():
        owned = {chains.CANARY, *base.get(name, ())}
        doomed = sorted(
            chain
            for chain in table.chains
            if chain in owned or (name == "nat" and chains.is_service_chain(chain))
        )
        if doomed:
            # IPVS mode shares chains with this one, and jumps to them from others.
            jumps = [f"-D {rule[3:]}" for rule in table.rules if _leads_to(rule, doomed)]
            out += [f"*{name}", *(f":{chain} - [0:0]" for chain in doomed), *jumps]
            out += [*(f"-X {chain}" for chain in doomed), "COMMIT"]
    return "\n".join(out) + "\n" if out else ""


def _leads_to(rule: str, doomed: Iterable[str]) -> bool:
    """From a chain that stays: those that go are emptied anyway."""
    words = rule.split()
    return words[-2] == "-j" and words[-1] in doomed and words[1] not in doomed
