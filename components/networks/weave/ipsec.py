"""Encryption of the fast path: ESP in transport mode for UDP 6784, one association for each direction. Pure.

Each side makes the association for what it receives: SPI, nonce, key = HKDF(session key, nonce, its own name), and
sends SPI and nonce to the other by their TCP session. A mark leads VXLAN into the policy, and what comes without ESP is
dropped:

    out   mangle OUTPUT  udp 6784 -> MARK 0x20000 -> policy (mark) -> ESP   filter OUTPUT: marked, no policy -> DROP
    in    mangle INPUT   esp SPI  -> MARK 0x20000 -> decrypted, mark stays  filter INPUT: udp 6784 unmarked  -> DROP

(github.com/weaveworks/weave, net/ipsec; RFC 4303; RFC 4106 for AES-GCM.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kubewire.components.kernel.iptables import Chain, Lead, Ruleset

MARK = "0x20000"
IN = "WEAVE-IPSEC-IN"
IN_MARK = "WEAVE-IPSEC-IN-MARK"
OUT = "WEAVE-IPSEC-OUT"
OUT_MARK = "WEAVE-IPSEC-OUT-MARK"
#: AES-256 and RFC 4106's salt.
_KEY_SIZE = 36
#: IPv4 20, ESP 8, IV 8, ICV 16, trailer: upstream reserves 34 bytes beyond VXLAN's 50.
OVERHEAD = 34


@dataclass(frozen=True, order=True)
class Association:
    """From one node to another. key: hex."""

    source: str
    destination: str
    spi: int
    key: str


def key(session_key: bytes, nonce: bytes, receiver: str) -> str:
    return HKDF(SHA256(), _KEY_SIZE, salt=nonce, info=receiver.encode()).derive(session_key).hex()


def install(one: Association, *, outgoing: bool) -> str:
    """`ip -batch` input."""
    state = (
        f"xfrm state add src {one.source} dst {one.destination} proto esp spi {one.spi:#x} mode transport "
        f"replay-window 128 flag esn aead rfc4106(gcm(aes)) 0x{one.key} 128\n"
    )
    if not outgoing:
        return state
    return state + (
        f"xfrm policy update {_selector(one)} tmpl src {one.source} dst {one.destination} proto esp spi {one.spi:#x} "
        "mode transport\n"
    )


def remove(one: Association) -> str:
    """`ip -batch` input."""
    return f"xfrm state delete src {one.source} dst {one.destination} proto esp spi {one.spi:#x}\n"


def remove_policy(one: Association) -> str:
    """`ip -batch` input. Without it what is marked leaves in clear, and filter OUTPUT drops it."""
    return f"xfrm policy delete {_selector(one)}\n"


def _selector(one: Association) -> str:
    return f"src {one.source}/32 dst {one.destination}/32 proto udp dir out mark {MARK} mask {MARK}"


def rules(incoming: Iterable[Association], port: int) -> Ruleset:
    """incoming: one of each peer; `destination` is this node."""
    associations = sorted(incoming)
    marked = tuple(
        f"-s {one.source} -d {one.destination} -p esp -m esp --espspi {one.spi} -j {IN_MARK}" for one in associations
    )
    outgoing = tuple(
        f"-s {one.destination} -d {one.source} -p udp -m udp --dport {port} -j {OUT_MARK}" for one in associations
    )
    refused = tuple(
        f"-s {one.source} -d {one.destination} -p udp -m udp --dport {port} -m mark ! --mark {MARK}/{MARK} -j DROP"
        for one in associations
    )
    set_mark = (f"-j MARK --set-xmark {MARK}/{MARK}",)
    return Ruleset(
        (
            Chain("mangle", IN, marked),
            Chain("mangle", IN_MARK, set_mark),
            Chain("mangle", OUT, outgoing),
            Chain("mangle", OUT_MARK, set_mark),
            Chain("filter", IN, refused),
        ),
        (
            Lead("mangle", "INPUT", (f"-j {IN}",)),
            Lead("mangle", "OUTPUT", (f"-j {OUT}",)),
            Lead("filter", "INPUT", (f"-j {IN}",)),
            Lead(
                "filter",
                "OUTPUT",
                (f"! -p esp -m policy --dir out --pol none -m mark --mark {MARK}/{MARK} -j DROP",),
            ),
        ),
    )
