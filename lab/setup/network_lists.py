"""Writes the lists of pod networks in a README and in a scenario, from the registry of networks:
`python -m kubewire.lab.setup.network_lists`.

Each list is a marked part of a file; the rest of the file is left alone. A test compares the lists
with the registry. The lab file's schema and its page have a generator of their own
(scenarios/engine/file/generate.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubewire.components.base import sources
from kubewire.components.networks import registry
from kubewire.components.networks.podnetwork import PodNetwork

#: Patterns that find the list in a file; the second group is the list.
_IN_README = re.compile(r"(^<!-- networks: .*?-->\n)(.*?)^<!-- end of networks -->$", re.M | re.S)
_IN_SCENARIO = re.compile(r"(^  # networks: .*?\n  cni:\n)((?:    - .*\n)*)", re.M)


def table() -> str:
    """The README's table in Markdown: a row for each network."""
    columns = ("folder", "`cni.plugin`", "upstream", "`cni.backend`, the default first")
    head = f"| {' | '.join(columns)} | how a packet reaches a pod on another node |"
    rows = [_row(one) for one in registry.NETWORKS if one.connects_pods]
    return "\n".join([head, "|---|---|---|---|---|", *rows, ""])


def _row(network: PodNetwork[Any]) -> str:
    addon = network.addon
    backends = ", ".join(f"`{name}`" for name in addon.backend_names)
    link = f"[{addon.folder}]({addon.folder}/README.md)"
    return f"| {link} | `{addon.name}` | {addon.upstream} | {backends} | {addon.summary} |"


def matrix() -> str:
    """The values of a scenario's matrix axis `cni`: every network with each of its backends."""
    return "".join(
        f"    - {one.name}/{backend}\n"
        for one in registry.NETWORKS
        if one.connects_pods
        for backend in one.addon.backend_names
    )


@dataclass(frozen=True)
class Listing:
    """A file below the root of the checkout, the pattern that finds its list, and the function that
    makes the list."""

    file: str
    place: re.Pattern[str]
    make: Callable[[], str]


LISTINGS = (
    Listing("components/networks/README.md", _IN_README, table),
    Listing("scenarios/catalogue/cni/every-network-keeps-them.scenario.yaml", _IN_SCENARIO, matrix),
)


def content(listing: Listing, root: Path) -> str:
    """The text of a file with an up-to-date list. Raises LookupError unless the file has exactly
    one list."""
    before = (root / listing.file).read_text()
    found = [*listing.place.finditer(before)]
    if len(found) != 1:
        raise LookupError(
            f"{listing.file}: found {len(found)} lists of networks instead of one; restore the "
            "comments that mark the list"
        )
    return f"{before[: found[0].start(2)]}{listing.make()}{before[found[0].end(2) :]}"


def main() -> int:
    """Writes one file after the other, because two lists may be in one file."""
    for listing in LISTINGS:
        if code := sources.write_generated(
            {sources.FOLDER / listing.file: content(listing, sources.FOLDER)}
        ):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
