"""Encryption of the fast path: ESP in transport mode for UDP 6784, one security association per
direction. Pure.

IPsec encrypts in the kernel: a policy selects outgoing packets, and a security association (SA)
holds the key and the sequence number of one direction. Keys are negotiated by the peers themselves,
not by IKE: the receiver of a direction creates the SA, with key = HKDF(session key, nonce,
receiver's name), and sends SPI and nonce over their TCP session. A fresh nonce for every connection
makes a fresh key, which AES-GCM demands, because a repeated (key, IV) pair breaks it (RFC 4106,
section 3.1).

A policy alone is not safe: while it is missing, VXLAN would leave in clear text. So a mark ties the
parts together, and filter rules drop packets that carry the mark without a policy, or arrive
without ESP:

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
#: A key of AES-256 and the salt of RFC 4106.
_KEY_SIZE = 36
#: IPv4 20, ESP 8, IV 8, ICV 16, trailer: upstream reserves 34 bytes beyond VXLAN's 50.
OVERHEAD = 34


@dataclass(frozen=True, order=True)
class Association:
    """The SA from one node to another. key: hex."""

    source: str
    destination: str
    spi: int
    key: str


def key(session_key: bytes, nonce: bytes, receiver: str) -> str:
    return HKDF(SHA256(), _KEY_SIZE, salt=nonce, info=receiver.encode()).derive(session_key).hex()


def install(association: Association, *, outgoing: bool) -> str:
    """`ip -batch` input."""
    ends = (
        f"src {association.source} dst {association.destination} proto esp spi {association.spi:#x}"
    )
    state = (
        f"xfrm state add {ends} mode transport "
        f"replay-window 128 flag esn aead rfc4106(gcm(aes)) 0x{association.key} 128\n"
    )
    if not outgoing:
        return state
    return state + f"xfrm policy update {_selector(association)} tmpl {ends} mode transport\n"


def remove(association: Association) -> str:
    """`ip -batch` input."""
    ends = f"src {association.source} dst {association.destination}"
    return f"xfrm state delete {ends} proto esp spi {association.spi:#x}\n"


def remove_policy(association: Association) -> str:
    """`ip -batch` input. Without the policy, filter OUTPUT drops the marked packets: nothing leaves
    in clear text."""
    return f"xfrm policy delete {_selector(association)}\n"


def _selector(association: Association) -> str:
    ends = f"src {association.source}/32 dst {association.destination}/32"
    return f"{ends} proto udp dir out mark {MARK} mask {MARK}"


def rules(incoming: Iterable[Association], port: int) -> Ruleset:
    """incoming: the association from each peer; its `destination` is this node."""
    associations = sorted(incoming)
    marked = tuple(
        f"-s {one.source} -d {one.destination} -p esp -m esp --espspi {one.spi} -j {IN_MARK}"
        for one in associations
    )
    outgoing = tuple(
        f"-s {one.destination} -d {one.source} -p udp -m udp --dport {port} -j {OUT_MARK}"
        for one in associations
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
