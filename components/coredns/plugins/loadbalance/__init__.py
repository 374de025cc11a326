"""loadbalance: shuffles A, AAAA and MX records and puts CNAMEs first
(https://coredns.io/plugins/loadbalance/)."""

from __future__ import annotations

import random
from dataclasses import replace

from dnslib import RR

from kubewire.components.coredns.message import AAAA, CNAME, MX, A, Request, Response
from kubewire.components.coredns.plugin import Next, Setup


class LoadBalance:
    name = "loadbalance"

    def __init__(self, chance: random.Random) -> None:
        self._random = chance

    async def serve(self, request: Request, following: Next) -> Response:
        response = await following(request)
        if len(response.answer) < 2:
            return response
        return replace(response, answer=self._shuffled(response.answer))

    def _shuffled(self, records: tuple[RR, ...]) -> tuple[RR, ...]:
        aliases = [rr for rr in records if rr.rtype == CNAME]
        shuffled = [rr for rr in records if rr.rtype in (A, AAAA, MX)]
        rest = [rr for rr in records if rr.rtype not in (A, AAAA, MX, CNAME)]
        self._random.shuffle(shuffled)
        return (*aliases, *rest, *shuffled)


def setup(setup: Setup) -> LoadBalance:
    for line in setup.lines:
        if line.args not in ((), ("round_robin",)):
            line.fail(f"unknown policy: {line.args[0]}")
    return LoadBalance(random.Random())
