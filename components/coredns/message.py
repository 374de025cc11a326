"""DNS messages: bytes -> Request, Response -> bytes. Pure (RFC 1035, EDNS0 RFC 6891).

Record data are dnslib's RR objects, which are never changed once they are in a Response.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from dnslib import CLASS, QTYPE, RR, DNSError, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from dnslib.buffer import BufferError as DNSBufferError

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 16: "BADVERS"}
A, NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 13, 15, 16, 28, 33, 41, 255
IN, CHAOS = 1, 3
#: Without EDNS0 a UDP answer has at most so many octets (RFC 1035 4.2.1).
UDP_SIZE = 512
_HEADER = struct.Struct("!HHHHHH")


@dataclass(frozen=True)
class Request:
    """One question. name is lower case with its final dot; question is the wire form as it was sent, whose
    case the answer must keep. udp_size 0: no EDNS0."""

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
    #: How many CNAMEs led here, for lookups inside the server.
    depth: int = 0

    @property
    def type_name(self) -> str:
        return str(QTYPE.get(self.qtype, f"TYPE{self.qtype}"))

    @property
    def class_name(self) -> str:
        return str(CLASS.get(self.qclass, f"CLASS{self.qclass}"))


@dataclass(frozen=True)
class Response:
    """What is answered; the question is added by encode()."""

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
    """Bytes that get no answer: too short, or themselves an answer."""


class Rejected(Exception):
    """A message that is answered with an error; reply is the bytes of it."""

    def __init__(self, reply: bytes, rcode: int) -> None:
        super().__init__(RCODES[rcode])
        self.reply, self.rcode = reply, rcode


#: RFC 1035, 2.3.4 and 3.1; pointers as miekg/dns bounds them (maxCompressionPointers).
_LONGEST_NAME, _LONGEST_LABEL, _MOST_POINTERS = 255, 63, 126


class _Malformed(Exception):
    """No message of DNS."""


def decode(data: bytes, transport: str = "udp", peer: str = "") -> Request:
    """Raises Ignored or Rejected: FORMERR unless there is exactly one question, NOTIMP for other opcodes.

    Counts as miekg/dns accepts them (DefaultMsgAcceptFunc). Records behind the question are read for EDNS0 only; from
    one that is malformed on they are left out, as miekg/dns does.
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
    """The labels of a name, and where what follows it begins. Raises _Malformed."""
    labels: list[bytes] = []
    behind, pointers, size = 0, 0, 1
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
    """dnslib reads any name, and packs none that is longer than RFC 1035 has it."""
    lengths = [len(label) for label in name.label]
    return 1 + len(lengths) + sum(lengths) <= _LONGEST_NAME and max(lengths, default=0) <= _LONGEST_LABEL


def _text(labels: list[bytes]) -> str:
    """A name as people write it; a dot inside of a label is none between two (RFC 1035, 5.1)."""
    if not any(b"." in label for label in labels):
        return str(DNSLabel(labels))
    return "".join(str(DNSLabel([label]))[:-1].replace(".", "\\.") + "." for label in labels)


def _read_edns(data: bytes, offset: int, counts: tuple[int, int, int]) -> tuple[int, int] | None:
    """Class and TTL of the OPT record: the size that the client takes, and flags (RFC 6891, 6.1.2)."""
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
    """An error without the question: it could not be read, or there were several."""
    return _HEADER.pack(ident, 0x8000 | flags & 0x7900 | rcode, 0, 0, 0, 0)


def encode_question(labels: Iterable[bytes], qtype: int, qclass: int = IN) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + struct.pack("!HH", qtype, qclass)


def question_for(name: str, qtype: int, qclass: int = IN) -> Request:
    """A request of our own, for lookups inside the server."""
    return Request(0, name.lower(), qtype, qclass, encode_question(DNSLabel(name).label, qtype, qclass))


def renamed(request: Request, name: str, qtype: int | None = None) -> Request:
    """The same request for another name."""
    kind = request.qtype if qtype is None else qtype
    question = encode_question(DNSLabel(name).label, kind, request.qclass)
    return replace(request, name=name.lower(), qtype=kind, question=question)


def encode_query(request: Request, ident: int, udp_size: int = 0) -> bytes:
    """The request as we send it on to another server."""
    flags = request.recursion_desired << 8 | request.authentic_data << 5 | request.checking_disabled << 4
    edns = udp_size or request.udp_size
    opt = struct.pack("!BHHIH", 0, OPT, edns, request.dnssec_ok << 15, 0) if edns else b""
    return _HEADER.pack(ident, flags, 1, 0, 0, 1 if opt else 0) + request.question + opt


def decode_response(data: bytes, plugin: str = "") -> Response:
    """An upstream's answer. Raises DNSError when it cannot be read."""
    try:
        record = DNSRecord.parse(data)
    except (DNSBufferError, ValueError, struct.error, IndexError, KeyError, RecursionError) as error:
        raise DNSError(str(error)) from error
    header = record.header
    for rr in (*record.rr, *record.auth, *record.ar):
        names = (rr.rname, *(getattr(rr.rdata, key, None) for key in ("label", "target", "mname", "rname", "exchange")))
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
    """The answer's bytes, no longer than the client takes by UDP: first additional records go, then answers
    with the TC bit (RFC 2181 9). Names equal to the question keep the case of the question."""
    limit = 0xFFFF if request.transport == "tcp" else max(request.udp_size, UDP_SIZE)
    data = _pack(request, response)
    if len(data) <= limit:
        return data
    response = replace(response, additional=())
    data = _pack(request, response)
    if len(data) <= limit:
        return data
    low, high = 0, len(response.answer)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_pack(request, _cut(response, middle))) <= limit:
            low = middle
        else:
            high = middle - 1
    return _pack(request, _cut(response, low))


def _cut(response: Response, answers: int) -> Response:
    return replace(response, answer=response.answer[:answers], authority=(), additional=(), truncated=True)


def _pack(request: Request, response: Response) -> bytes:
    header = DNSHeader(id=request.id, bitmap=0, qr=1, rd=request.recursion_desired, rcode=response.rcode & 0xF)
    header.aa, header.ra, header.tc = response.authoritative, response.recursion_available, response.truncated
    header.ad, header.cd = response.authentic_data, request.checking_disabled
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
    out, position = [], 0
    while position < len(question) and (length := question[position]):
        out.append(question[position + 1 : position + 1 + length])
        position += 1 + length
    return tuple(out)


def _recased(rr: RR, name: str, labels: tuple[bytes, ...]) -> RR:
    if rr.rname.label == labels or str(rr.rname).lower() != name:
        return rr
    return RR(DNSLabel(labels), rr.rtype, rr.rclass, rr.ttl, rr.rdata)


def with_ttl(rr: RR, ttl: int) -> RR:
    """A copy; the original may be in a cache."""
    return RR(rr.rname, rr.rtype, rr.rclass, ttl, rr.rdata)


def type_number(name: str) -> int:
    """Raises KeyError for a type that dnslib does not know."""
    return int(name[4:]) if name.upper().startswith("TYPE") and name[4:].isdigit() else int(QTYPE.reverse[name.upper()])
