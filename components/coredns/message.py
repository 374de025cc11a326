"""DNS messages: bytes -> Request, Response -> bytes. Pure (RFC 1035; EDNS0: RFC 6891).

The resource records of a Response are dnslib's RR objects. They may be in the cache and in several
responses at once, so nothing changes them once they are in a Response.

Questions are parsed here and not by dnslib, because they come from any client: a name that is too
long, a compression pointer that loops or a malformed record behind the question must get the answer
that CoreDNS gives, and must never raise an exception other than Ignored and Rejected.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dnslib import CLASS, QTYPE, RR, DNSError, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from dnslib.buffer import BufferError as DNSBufferError

NOERROR = 0
FORMERR = 1
SERVFAIL = 2
NXDOMAIN = 3
NOTIMP = 4
REFUSED = 5
BADVERS = 16
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    16: "BADVERS",
}
A = 1
NS = 2
CNAME = 5
SOA = 6
PTR = 12
HINFO = 13
MX = 15
TXT = 16
AAAA = 28
SRV = 33
OPT = 41
ANY = 255
IN = 1
CHAOS = 3
#: The most octets that a UDP answer may have without EDNS0 (RFC 1035, 4.2.1).
UDP_SIZE = 512
_HEADER = struct.Struct("!HHHHHH")


@dataclass(frozen=True)
class Request:
    """One question.

    name: in lower case, with the final dot. question: the question section as it was sent; the
    answer must keep its case. udp_size: the client's EDNS0 buffer size; 0 without EDNS0.
    """

    id: int
    name: str
    qtype: int
    qclass: int = IN
    question: bytes = b""
    recursion_desired: bool = True
    checking_disabled: bool = False
    authentic_data: bool = False
    dnssec_ok: bool = False
    udp_size: int = 0
    edns_version: int = 0
    transport: str = "udp"
    peer: str = ""
    size: int = 0
    #: The number of CNAMEs followed so far, in lookups that the server makes itself.
    depth: int = 0

    @property
    def type_name(self) -> str:
        return str(QTYPE.get(self.qtype, f"TYPE{self.qtype}"))

    @property
    def class_name(self) -> str:
        return str(CLASS.get(self.qclass, f"CLASS{self.qclass}"))


@dataclass(frozen=True)
class Response:
    """The answer to a Request; encode() adds the question section."""

    rcode: int = NOERROR
    answer: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()
    additional: tuple[RR, ...] = ()
    authoritative: bool = False
    recursion_available: bool = False
    authentic_data: bool = False
    truncated: bool = False
    #: The plugin that answered, for metrics.
    plugin: str = ""


class Ignored(Exception):
    """The message gets no answer: it is shorter than a header, or it is itself an answer."""


class Rejected(Exception):
    """The message is answered with an error; reply holds the bytes to send."""

    def __init__(self, reply: bytes, rcode: int) -> None:
        super().__init__(RCODES[rcode])
        self.reply = reply
        self.rcode = rcode


#: RFC 1035, 2.3.4 and 3.1. The limit on pointers is that of miekg/dns (maxCompressionPointers).
_LONGEST_NAME = 255
_LONGEST_LABEL = 63
_MOST_POINTERS = 126


#: What dnslib raises for malformed bytes, besides DNSError.
_DNSLIB_ERRORS = (
    DNSBufferError,
    ValueError,
    struct.error,
    IndexError,
    KeyError,
    RecursionError,
)


class _Malformed(Exception):
    """The bytes are not a well-formed name."""


def decode(data: bytes, transport: str = "udp", peer: str = "") -> Request:
    """Parses a query.

    Raises Ignored, or Rejected: with NOTIMP for an opcode other than QUERY, with FORMERR unless
    there is exactly one question and the record counts are those miekg/dns accepts
    (DefaultMsgAcceptFunc). The records after the question are only read for EDNS0. As in miekg/dns,
    reading stops silently at a malformed record.
    """
    if len(data) < _HEADER.size:
        raise Ignored
    ident, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & 0x8000:
        raise Ignored
    if flags >> 11 & 0xF:
        raise Rejected(_bare(ident, flags, NOTIMP), NOTIMP)
    if questions != 1 or answers > 1 or authorities > 1 or additionals > 2:
        raise Rejected(_bare(ident, flags, FORMERR), FORMERR)
    try:
        labels, offset = _read_name(data, _HEADER.size)
        qtype, qclass = struct.unpack_from("!HH", data, offset)
    except (_Malformed, struct.error) as error:
        raise Rejected(_bare(ident, flags, FORMERR), FORMERR) from error
    edns = _read_edns(data, offset + 4, (answers, authorities, additionals))
    size, ttl = edns or (0, 0)
    return Request(
        id=ident,
        name=_text(labels).lower(),
        qtype=qtype,
        qclass=qclass,
        question=encode_question(labels, qtype, qclass),
        recursion_desired=bool(flags & 0x0100),
        checking_disabled=bool(flags & 0x0010),
        authentic_data=bool(flags & 0x0020),
        dnssec_ok=bool(ttl & 0x8000),
        udp_size=max(size, UDP_SIZE) if edns else 0,
        edns_version=ttl >> 16 & 0xFF,
        transport=transport,
        peer=peer,
        size=len(data),
    )


def _read_name(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """Returns a name's labels and the offset of what follows the name. Raises _Malformed."""
    labels: list[bytes] = []
    behind = 0
    pointers = 0
    size = 1
    while True:
        if offset >= len(data):
            raise _Malformed("cut off in a name")
        length = data[offset]
        if length >= 0xC0:
            if offset + 2 > len(data):
                raise _Malformed("cut off in a pointer")
            behind = behind or offset + 2
            target = (length & 0x3F) << 8 | data[offset + 1]
            pointers += 1
            if target >= offset or pointers > _MOST_POINTERS:
                raise _Malformed("a pointer that leads nowhere")
            offset = target
            continue
        if length > _LONGEST_LABEL:
            raise _Malformed("a label of an unknown type")
        label = data[offset + 1 : offset + 1 + length]
        if len(label) < length:
            raise _Malformed("cut off in a label")
        offset += 1 + length
        if not length:
            return labels, behind or offset
        size += 1 + length
        if size > _LONGEST_NAME:
            raise _Malformed("a name of more than 255 octets")
        labels.append(label)


def _may_be_written(name: DNSLabel) -> bool:
    """Whether dnslib can pack the name: it parses names of any length but packs only legal ones."""
    lengths = [len(label) for label in name.label]
    octets = 1 + len(lengths) + sum(lengths)
    return octets <= _LONGEST_NAME and max(lengths, default=0) <= _LONGEST_LABEL


def _text(labels: list[bytes]) -> str:
    r"""The name in presentation format; a dot inside a label is written `\.` (RFC 1035, 5.1)."""
    if not any(b"." in label for label in labels):
        return str(DNSLabel(labels))
    return "".join(str(DNSLabel([label]))[:-1].replace(".", "\\.") + "." for label in labels)


def _read_edns(data: bytes, offset: int, counts: tuple[int, int, int]) -> tuple[int, int] | None:
    """Class and TTL of the OPT record: the client's buffer size, and flags (RFC 6891, 6.1.2)."""
    first = counts[0] + counts[1]
    try:
        for number in range(first + counts[2]):
            labels, offset = _read_name(data, offset)
            kind, size, ttl, length = struct.unpack_from("!HHIH", data, offset)
            offset += 10 + length
            if offset > len(data):
                return None
            if kind == OPT and number >= first and not labels:
                return size, ttl
    except (_Malformed, struct.error):
        pass
    return None


def _bare(ident: int, flags: int, rcode: int) -> bytes:
    """An error without a question section: the question is unreadable, or there are several."""
    return _HEADER.pack(ident, 0x8000 | flags & 0x7900 | rcode, 0, 0, 0, 0)


def encode_question(labels: Iterable[bytes], qtype: int, qclass: int = IN) -> bytes:
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return name + struct.pack("!HH", qtype, qclass)


def question_for(name: str, qtype: int, qclass: int = IN) -> Request:
    """A request that the server makes itself, for lookups inside the server."""
    return Request(
        0,
        name.lower(),
        qtype,
        qclass,
        encode_question(DNSLabel(name).label, qtype, qclass),
    )


def renamed(request: Request, name: str, qtype: int | None = None) -> Request:
    """The same request for another name, and for another type if qtype is given."""
    kind = request.qtype if qtype is None else qtype
    question = encode_question(DNSLabel(name).label, kind, request.qclass)
    return replace(request, name=name.lower(), qtype=kind, question=question)


def encode_query(request: Request, ident: int, udp_size: int = 0) -> bytes:
    """The bytes that forward the request to another server."""
    flags = request.recursion_desired << 8
    flags |= request.authentic_data << 5 | request.checking_disabled << 4
    edns = udp_size or request.udp_size
    opt = struct.pack("!BHHIH", 0, OPT, edns, request.dnssec_ok << 15, 0) if edns else b""
    return _HEADER.pack(ident, flags, 1, 0, 0, 1 if opt else 0) + request.question + opt


def decode_response(data: bytes, plugin: str = "") -> Response:
    """Parses an upstream's answer. Raises DNSError when it is malformed."""
    try:
        record = DNSRecord.parse(data)
    except _DNSLIB_ERRORS as error:
        raise DNSError(str(error)) from error
    header = record.header
    for rr in (*record.rr, *record.auth, *record.ar):
        fields = ("label", "target", "mname", "rname", "exchange")
        names = (rr.rname, *(getattr(rr.rdata, key, None) for key in fields))
        if any(isinstance(name, DNSLabel) and not _may_be_written(name) for name in names):
            raise DNSError("a name of more than 255 octets, or with a label of more than 63")
    return Response(
        rcode=header.rcode,
        answer=tuple(record.rr),
        authority=tuple(record.auth),
        additional=tuple(rr for rr in record.ar if rr.rtype != OPT),
        authoritative=bool(header.aa),
        recursion_available=bool(header.ra),
        authentic_data=bool(header.ad),
        truncated=bool(header.tc),
        plugin=plugin,
    )


def encode(request: Request, response: Response) -> bytes:
    """The answer's bytes, no longer than the client accepts over UDP.

    An answer that is too long loses its additional records first. If that is not enough, it loses
    answers and gets the TC bit, which tells the client to ask again over TCP (RFC 2181, 9). Owner
    names equal to the question's name get the case of the question.
    """
    limit = 0xFFFF if request.transport == "tcp" else max(request.udp_size, UDP_SIZE)
    data = _pack(request, response)
    if len(data) <= limit:
        return data
    response = replace(response, additional=())
    data = _pack(request, response)
    if len(data) <= limit:
        return data
    low = 0
    high = len(response.answer)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_pack(request, _cut(response, middle))) <= limit:
            low = middle
        else:
            high = middle - 1
    return _pack(request, _cut(response, low))


def _cut(response: Response, answers: int) -> Response:
    return replace(
        response,
        answer=response.answer[:answers],
        authority=(),
        additional=(),
        truncated=True,
    )


def _pack(request: Request, response: Response) -> bytes:
    header = DNSHeader(
        id=request.id,
        bitmap=0,
        qr=1,
        rd=request.recursion_desired,
        rcode=response.rcode & 0xF,
    )
    header.aa = response.authoritative
    header.ra = response.recursion_available
    header.tc = response.truncated
    header.ad = response.authentic_data
    header.cd = request.checking_disabled
    labels = _labels(request.question)
    record = DNSRecord(header, q=DNSQuestion(DNSLabel(labels), request.qtype, request.qclass))
    record.rr = [_recased(rr, request.name, labels) for rr in response.answer]
    record.auth = list(response.authority)
    record.ar = [_recased(rr, request.name, labels) for rr in response.additional]
    if request.udp_size:
        opt_ttl = (response.rcode >> 4) << 24 | request.dnssec_ok << 15
        record.ar.append(RR(".", OPT, request.udp_size, opt_ttl, []))
    return bytes(record.pack())


def _labels(question: bytes) -> tuple[bytes, ...]:
    out = []
    position = 0
    while position < len(question) and (length := question[position]):
        out.append(question[position + 1 : position + 1 + length])
        position += 1 + length
    return tuple(out)


def _recased(rr: RR, name: str, labels: tuple[bytes, ...]) -> RR:
    if rr.rname.label == labels or str(rr.rname).lower() != name:
        return rr
    return RR(DNSLabel(labels), rr.rtype, rr.rclass, rr.ttl, rr.rdata)


def with_ttl(rr: RR, ttl: int) -> RR:
    """A copy with another TTL; the original may be in a cache."""
    return RR(rr.rname, rr.rtype, rr.rclass, ttl, rr.rdata)


def type_number(name: str) -> int:
    """The number of a type such as `AAAA` or `TYPE65`. Raises KeyError for an unknown name."""
    if name.upper().startswith("TYPE") and name[4:].isdigit():
        return int(name[4:])
    return int(QTYPE.reverse[name.upper()])
