"""The one place that writes our table and looks at what of it is there: by nft, or by netlink where
that is quicker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

from kubewire.components.kernel import command
from kubewire.components.kernel.nfnetlink.netlink import Message, NetlinkError, NfTablesSocket
from kubewire.components.kube_proxy.nftables import chains
from kubewire.components.kube_proxy.nftables.messages import Encoder, Unencodable
from kubewire.components.kube_proxy.nftables.plan import Present
from kubewire.components.kube_proxy.nftables.statements import (
    AddAffinitySet,
    AddElement,
    Statement,
    text,
)

#: For each anonymous map the kernel walks the transaction so far: long ones take the square of
#: their time.
_LONGEST_PIECE = 1000
#: Bytes; fits net.core.wmem_max, the limit of processes without rights outside their user
#: namespace.
_LARGEST_PIECE = 100_000
_STATEMENTS = 100
_SECONDS = 600


class Nft:
    """Table kube-proxy of one family ("ip" or "ip6") in the network namespace this process is
    in."""

    def __init__(self, ip: str) -> None:
        self._ip = ip
        self._encoder = Encoder(ip)
        self._kernel: NfTablesSocket | None = None

    async def apply(self, statements: Sequence[Statement]) -> None:
        """All of it or nothing. Raises CommandError, and OSError as NetlinkError."""
        try:
            messages = self._encoder.messages(statements)
        except Unencodable:
            await self._nft(["nft", "-f", "-"], text(statements, self._ip))
            return
        self._transact(messages)

    async def load(self, setup: Sequence[Statement], statements: Sequence[Statement]) -> None:
        """For a table that is not there yet: setup; then chains with their rules, which nothing
        leads to, piece by piece; then the elements that lead to them. Raises CommandError, OSError;
        the next load may find a part."""
        await self._nft(["nft", "-f", "-"], text(setup, self._ip))
        await asyncio.to_thread(self._load, statements)

    def _load(self, statements: Sequence[Statement]) -> None:
        elements = [item for item in statements if isinstance(item, AddElement)]
        for part in ([item for item in statements if not isinstance(item, AddElement)], elements):
            for piece in self._pieces(part):
                self._transact(piece)

    def _pieces(self, statements: Sequence[Statement]) -> Iterator[list[Message]]:
        piece: list[Message] = []
        size = 0
        for first in range(0, len(statements), _STATEMENTS):
            messages = self._encoder.messages(statements[first : first + _STATEMENTS])
            if piece and (len(piece) > _LONGEST_PIECE or size > _LARGEST_PIECE):
                yield piece
                piece, size = [], 0
            piece += messages
            size += sum(len(message.payload) for message in messages)
        yield piece

    def _transact(self, messages: Sequence[Message]) -> None:
        if self._kernel is None:
            self._kernel = NfTablesSocket()
        try:
            self._kernel.transact(messages)
        except NetlinkError as error:
            line = (
                text([error.origin], self._ip)
                if isinstance(error.origin, Statement)
                else str(error.origin)
            )
            raise NetlinkError(error.errno or 0, line.rstrip()) from error

    async def present(self) -> Present | None:
        """None when there is no table. Rules are not looked at: reading them takes nft longer than
        writing them."""
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
        # --terse: without elements. `list tables` and `list chain` would have nft 1.0.6 read every
        # rule there is.
        out = await self._nft(["nft", "--json", "--terse", "list", f"{kind}s", self._ip])
        listed = (item.get(kind) for item in json.loads(out)["nftables"])
        return [item for item in listed if item and item["table"] == chains.TABLE]

    async def _nft(self, argv: list[str], stdin: str = "") -> str:
        done = await command.run(argv, stdin=stdin.encode(), timeout=_SECONDS, check=True)
        return done.stdout.decode()
