"""The one place that runs nft: a transaction, and what of our table is there."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

from components.kube_proxy.nftables import chains
from components.kube_proxy.nftables.plan import Present
from components.kube_proxy.nftables.statements import AddAffinitySet

_CONTEXT_LINES = 3


class NftError(Exception):
    """A command that failed: its argv, exit code, output and, for a transaction, the lines around the fault."""

    def __init__(self, argv: Sequence[str], code: int, output: str, lines: str = "") -> None:
        where = f"\n{lines}" if lines else ""
        super().__init__(f"{' '.join(argv)}: exit status {code}: {output.strip()}{where}")


class Nft:
    """Table kube-proxy of one family ("ip" or "ip6") in the network namespace this process is in."""

    def __init__(self, ip: str) -> None:
        self._ip = ip

    async def run(self, text: str) -> None:
        """All of it or nothing. Raises NftError."""
        await self._nft(["nft", "-f", "-"], text)

    async def present(self) -> Present | None:
        """None when there is no table. Rules are not looked at: reading them takes nft longer than writing them."""
        sets, found = await self._list("set"), await self._list("chain")
        if not sets and not found:
            return None
        affinity = [item for item in sets if chains.is_affinity_set(item["name"])]
        return Present(
            frozenset(item["name"] for item in found if chains.is_service_chain(item["name"])),
            tuple(AddAffinitySet(item["name"], item.get("timeout", 0)) for item in affinity),
        )

    async def has_table(self) -> bool:
        return bool(await self._list("set"))

    async def _list(self, kind: str) -> list[dict[str, Any]]:
        # --terse: without elements. `list tables` and `list chain` would have nft 1.0.6 read every rule there is.
        out = await self._nft(["nft", "--json", "--terse", "list", f"{kind}s", self._ip])
        listed = (item.get(kind) for item in json.loads(out)["nftables"])
        return [item for item in listed if item and item["table"] == chains.TABLE]

    async def _nft(self, argv: list[str], stdin: str = "") -> str:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
        except FileNotFoundError as error:
            raise NftError(argv, 127, f"{error}; install the Debian package nftables") from error
        out, err = await process.communicate(stdin.encode())
        if process.returncode:
            text = err.decode(errors="replace")
            raise NftError(argv, process.returncode, text, _around(stdin, text))
        return out.decode()


def _around(text: str, error: str) -> str:
    """nft names the place it could not take: `/dev/stdin:12:5-9: Error: ...`."""
    found = re.search(r":(\d+):\d+", error)
    if not found:
        return ""
    number, lines = int(found[1]), text.splitlines()
    first = max(number - _CONTEXT_LINES, 1)
    shown = lines[first - 1 : number + _CONTEXT_LINES - 1]
    return "\n".join(f"{first + i:6} {line}" for i, line in enumerate(shown))
