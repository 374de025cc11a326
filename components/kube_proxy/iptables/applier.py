"""The one place that writes and reads iptables' rules: save, restore, is a chain there.

Of the two variants (nf_tables, legacy) the one is used that this network namespace uses already:
variant.py. With nf_tables a restore becomes netlink messages; the tool, which first reads and sorts
all there is, does what they cannot.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from kubewire.components.kernel import command
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.nfnetlink.iptables import TableChange, restore_input
from kubewire.components.kernel.nfnetlink.netlink import Batch, NetlinkError, NfTablesSocket, batch
from kubewire.components.kernel.nfnetlink.xtables import Unsupported
from kubewire.components.kube_proxy.iptables import variant
from kubewire.components.kube_proxy.state.model import IPV4

#: Seconds to wait for the lock that other iptables users hold (upstream's --wait 5).
_LOCK_SECONDS = "5"
#: For a first load by iptables-restore, which takes long with many thousand Services.
_SECONDS = 600


class Iptables:
    """iptables or ip6tables of the network namespace this process is in."""

    def __init__(self, family: str) -> None:
        self._prefix = "iptables" if family == IPV4 else "ip6tables"
        self._ip = "ip" if family == IPV4 else "ip6"
        self._variant: str | None = None
        self._kernel: NfTablesSocket | None = None

    async def save(self) -> str:
        """All tables. Raises CommandError, OSError."""
        return await self._run([await self._command("save")])

    async def restore(self, changes: Sequence[TableChange]) -> None:
        """All or nothing; chains that are not named stay. What only the tool can write is all or
        nothing per table. Raises CommandError, and OSError as NetlinkError."""
        if variant.is_nf_tables(await self._chosen()):
            # In a thread: the kernel takes seconds for thousands of Services, and the API's events
            # wait.
            changes = await asyncio.to_thread(self._by_messages, changes)
        if text := restore_input(changes):
            await self.restore_text(text)

    def _by_messages(self, changes: Sequence[TableChange]) -> Sequence[TableChange]:
        """What is left for the tool.

        All tables are written in one transaction, if it fits. With one for each table, as
        iptables-restore does it, a packet can meet the filter table of the new state and the nat
        table of the old one: when a Service gets its first endpoint the packet is not refused any
        more and not translated yet, and a router answers that the network of the ClusterIP is
        unreachable.
        """
        try:
            kernel = self._socket()
            transactions = self._transactions([change for change in changes if change], kernel)
            if not all(kernel.fits(len(transaction.data)) for transaction in transactions):
                return changes
            for transaction in transactions:
                kernel.commit(transaction)
        except Unsupported:
            return changes
        except NetlinkError:
            self._close()
            raise
        return [change.for_the_tool() for change in changes]

    def _transactions(self, changes: Sequence[TableChange], kernel: NfTablesSocket) -> list[Batch]:
        """One, or one for each table where the kernel's buffer is too small for it."""
        whole = batch(
            itertools.chain.from_iterable(change.messages(self._ip) for change in changes)
        )
        if kernel.fits(len(whole.data)):
            return [whole]
        return [batch(change.messages(self._ip)) for change in changes]

    def _socket(self) -> NfTablesSocket:
        """One for all restores: closing one waits until the kernel has freed what was deleted
        (nft_rcv_nl_event), some 15 ms."""
        if self._kernel is None:
            self._kernel = NfTablesSocket()
        return self._kernel

    def _close(self) -> None:
        """Answers may be left in it."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    async def restore_text(self, text: str) -> None:
        """Input of iptables-restore, made from what save() said."""
        await self._run(
            [await self._command("restore"), "--noflush", "--wait", _LOCK_SECONDS], text
        )

    async def has_chain(self, table: str, chain: str) -> bool:
        try:
            await self._run(
                [await self._command(), "--wait", _LOCK_SECONDS, "-t", table, "-S", chain, "1"]
            )
        except CommandError:
            return False
        return True

    async def _command(self, what: str = "") -> str:
        """`iptables`, `iptables-save`, `ip6tables-legacy-restore`, ..."""
        return "-".join(part for part in (self._prefix, await self._chosen(), what) if part)

    async def _chosen(self) -> str:
        if self._variant is None:
            self._variant = await variant.choose(lambda name: self._run([f"iptables-{name}-save"]))
        return self._variant

    async def _run(self, argv: list[str], stdin: str = "") -> str:
        done = await command.run(argv, stdin=stdin.encode(), timeout=_SECONDS, check=True)
        return done.stdout.decode()
