"""What a malformed message costs: the session, its routes or one attribute (RFC 4271, 6; RFC 7606)."""

import pytest

from kubewire.components.bgp import messages
from kubewire.components.bgp.messages import ProtocolError, Session, accepted_open, accepted_update, message, split

EXTERNAL, INTERNAL, OLD = Session(), Session(external=False), Session(four_octet_as=False)
ORIGIN = b"\x40\x01\x01\x00"
AS_PATH = b"\x40\x02\x06\x02\x01\x00\x00\xfd\xe9"
NEXT_HOP = b"\x40\x03\x04\x0a\x00\x01\x02"
GOOD = ORIGIN + AS_PATH + NEXT_HOP
NLRI = b"\x10\xac\x1e"
V6_HOP = bytes.fromhex("20010db8000000000000000000000001")
MP_REACH = b"\x80\x0e" + bytes([5 + 16 + 5]) + b"\x00\x02\x01\x10" + V6_HOP + b"\x00" + b"\x20\x20\x01\x0d\xb8"


def update(attributes=GOOD, nlri=NLRI, withdrawn=b""):
    sizes = len(withdrawn).to_bytes(2, "big"), len(attributes).to_bytes(2, "big")
    return message(messages.UPDATE, sizes[0] + withdrawn + sizes[1] + attributes + nlri)


WITHDRAWN = (update(b"", b"", NLRI),)


def test_a_good_one_stays_as_it_is():
    assert accepted_update(update(), EXTERNAL).messages == (update(),)
    assert accepted_update(update(), EXTERNAL).problems == ()


def test_trailing_bits_are_masked_and_a_prefix_is_there_once():
    twice = update(nlri=b"\x14\x0a\x00\x01\x14\x0a\x00\x0f\x18\x0a\x00\x02")
    assert accepted_update(twice, EXTERNAL).messages == (update(nlri=b"\x14\x0a\x00\x00\x18\x0a\x00\x02"),)


def test_a_prefix_in_both_fields_is_reachable():
    both = update(withdrawn=NLRI)
    assert accepted_update(both, EXTERNAL).messages == (update(b"", b"", NLRI), update())


def test_end_of_rib_is_passed_on():
    eor6 = update(b"\x80\x0f\x03\x00\x02\x01", b"")
    assert accepted_update(update(b"", b""), EXTERNAL).messages == (update(b"", b""),)
    assert accepted_update(eor6, EXTERNAL).messages == (eor6,)


@pytest.mark.parametrize(
    ("attributes", "session"),
    [
        pytest.param(b"\x40\x01\x02\x00\x00" + AS_PATH + NEXT_HOP, EXTERNAL, id="ORIGIN of two bytes"),
        pytest.param(b"\x40\x01\x01\x03" + AS_PATH + NEXT_HOP, EXTERNAL, id="ORIGIN 3"),
        pytest.param(b"\xc0\x01\x01\x00" + AS_PATH + NEXT_HOP, EXTERNAL, id="ORIGIN optional"),
        pytest.param(b"\x40\x01\x00" + AS_PATH + NEXT_HOP, EXTERNAL, id="ORIGIN empty"),
        pytest.param(AS_PATH + NEXT_HOP, EXTERNAL, id="no ORIGIN"),
        pytest.param(ORIGIN + NEXT_HOP, EXTERNAL, id="no AS_PATH"),
        pytest.param(ORIGIN + AS_PATH, EXTERNAL, id="no NEXT_HOP"),
        pytest.param(GOOD, INTERNAL, id="no LOCAL_PREF from a peer of the same AS"),
        pytest.param(ORIGIN + b"\x40\x02\x06\x05\x01\x00\x00\xfd\xe9" + NEXT_HOP, EXTERNAL, id="AS_PATH segment type"),
        pytest.param(ORIGIN + b"\x40\x02\x06\x03\x01\x00\x00\xfd\xe9" + NEXT_HOP, EXTERNAL, id="AS_CONFED_SEQUENCE"),
        pytest.param(ORIGIN + b"\x40\x02\x06\x02\x02\x00\x00\xfd\xe9" + NEXT_HOP, EXTERNAL, id="AS_PATH overrun"),
        pytest.param(ORIGIN + b"\x40\x02\x07\x02\x01\x00\x00\xfd\xe9\x02" + NEXT_HOP, EXTERNAL, id="AS_PATH underrun"),
        pytest.param(ORIGIN + b"\x40\x02\x02\x02\x00" + NEXT_HOP, EXTERNAL, id="AS_PATH empty segment"),
        pytest.param(ORIGIN + b"\x40\x02\x06\x02\x01\x00\x00\x00\x00" + NEXT_HOP, EXTERNAL, id="AS 0"),
        pytest.param(ORIGIN + AS_PATH + b"\x40\x03\x05\x0a\x00\x01\x02\x00", EXTERNAL, id="NEXT_HOP of five bytes"),
        pytest.param(ORIGIN + AS_PATH + b"\x40\x03\x04\x7f\x00\x00\x01", EXTERNAL, id="NEXT_HOP of the local host"),
        pytest.param(ORIGIN + AS_PATH + b"\x40\x03\x04\xe0\x00\x00\x01", EXTERNAL, id="NEXT_HOP multicast"),
        pytest.param(GOOD + b"\x80\x04\x03\x00\x00\x00", EXTERNAL, id="MULTI_EXIT_DISC of three bytes"),
        pytest.param(GOOD + b"\x40\x05\x01\x00", INTERNAL, id="LOCAL_PREF of one byte"),
        pytest.param(GOOD + b"\xc0\x08\x03\x00\x00\x00", EXTERNAL, id="COMMUNITIES of three bytes"),
        pytest.param(GOOD + b"\xc0\x08\x00", EXTERNAL, id="COMMUNITIES empty"),
        pytest.param(GOOD + b"\xc0\x10\x07" + bytes(7), EXTERNAL, id="EXTENDED_COMMUNITIES of seven bytes"),
        pytest.param(GOOD + b"\x40\x05\x04\x00\x00\x00\x64\x80\x09\x03\x00\x00\x00", INTERNAL, id="ORIGINATOR_ID"),
        pytest.param(GOOD + b"\x40\x05\x04\x00\x00\x00\x64\x80\x0a\x03\x00\x00\x00", INTERNAL, id="CLUSTER_LIST"),
        pytest.param(GOOD + b"\xc0\x08\xff\x00", EXTERNAL, id="an attribute beyond the end"),
        pytest.param(GOOD + b"\xd0\x08\x00", EXTERNAL, id="an attribute without a length"),
        pytest.param(GOOD + b"\xc0", EXTERNAL, id="half an attribute"),
    ],
)
def test_treat_as_withdraw(attributes, session):
    accepted = accepted_update(update(attributes), session)
    assert accepted.messages == WITHDRAWN
    assert "its routes are withdrawn" in accepted.problems[-1]


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"\x40\x06\x01\x00", id="ATOMIC_AGGREGATE with a value"),
        pytest.param(b"\xc0\x07\x05" + bytes(5), id="AGGREGATOR of five bytes"),
        pytest.param(b"\xc0\x07\x08" + bytes(8), id="AGGREGATOR of AS 0"),
        pytest.param(b"\x40\x05\x01\x00", id="LOCAL_PREF from another AS"),
        pytest.param(b"\x80\x09\x01\x00", id="ORIGINATOR_ID from another AS"),
        pytest.param(b"\x80\x0a\x01\x00", id="CLUSTER_LIST from another AS"),
        pytest.param(b"\xc0\x11\x01\x00", id="AS4_PATH of a peer that needs none"),
        pytest.param(b"\x40\x01\x01\x02", id="ORIGIN twice"),
        pytest.param(b"\x80\x0e\x05\x00\x19\x41\x00\x00", id="a family that is not spoken"),
    ],
)
def test_attribute_discard(extra):
    accepted = accepted_update(update(GOOD + extra), EXTERNAL)
    assert accepted.messages == (update(),)
    assert "discarded" in accepted.problems[0]


def test_unknown_optional_attributes_pass_when_transitive():
    kept = b"\xc0\xc8\x02ab"
    assert accepted_update(update(GOOD + kept + b"\x80\xc9\x02ab"), EXTERNAL).messages == (update(GOOD + kept),)


def test_as_numbers_of_two_octets_become_four():
    old = ORIGIN + b"\x40\x02\x06\x02\x02\xfd\xe9\x00\x07" + NEXT_HOP
    new = ORIGIN + b"\x40\x02\x0a\x02\x02\x00\x00\xfd\xe9\x00\x00\x00\x07" + NEXT_HOP
    assert accepted_update(update(old), OLD).messages == (update(new),)


def test_malformed_ipv6_routes_are_withdrawn_beside_what_is_withdrawn_anyway():
    gone = b"\x80\x0f\x08\x00\x02\x01\x20\x20\x01\x0d\xb9"
    accepted = accepted_update(update(b"\x40\x01\x01\x07" + AS_PATH + gone + MP_REACH, b""), EXTERNAL)
    assert accepted.messages == (update(gone, b""), update(b"\x80\x0f\x08\x00\x02\x01\x20\x20\x01\x0d\xb8", b""))


@pytest.mark.parametrize(
    ("whole", "code", "subcode"),
    [
        pytest.param(message(2, b"\x00\x05\x00\x00"), 3, 1, id="withdrawn routes beyond the end"),
        pytest.param(message(2, b"\x00\x00\x00\x05\x00"), 3, 1, id="attributes beyond the end"),
        pytest.param(message(2, b"\xff\xff\x00\x00"), 3, 1, id="the longest withdrawn routes"),
        pytest.param(update(nlri=b"\x21\x0a\x00\x00\x00\x00"), 3, 10, id="a prefix of 33 bits"),
        pytest.param(update(nlri=b"\x18\x0a\x00"), 3, 10, id="a prefix beyond the end"),
        pytest.param(update(b"", b"", b"\xff"), 3, 10, id="a withdrawn prefix of 255 bits"),
        pytest.param(update(GOOD + b"\x40\xc8\x00"), 3, 2, id="an unknown well-known attribute"),
        pytest.param(update(GOOD + MP_REACH + MP_REACH, b""), 3, 1, id="MP_REACH_NLRI twice"),
        pytest.param(update(GOOD + b"\x80\x0e\x04\x00\x02\x01\x00", b""), 3, 9, id="MP_REACH_NLRI cut"),
        pytest.param(update(GOOD + b"\x80\x0e\x06\x00\x02\x01\x40\x00\x00", b""), 3, 9, id="MP_REACH_NLRI next hop"),
        pytest.param(update(GOOD + b"\x80\x0f\x02\x00\x02", b""), 3, 9, id="MP_UNREACH_NLRI cut"),
        pytest.param(update(GOOD + b"\x80\x0f\x04\x00\x02\x01\x81", b""), 3, 10, id="an IPv6 prefix of 129 bits"),
        pytest.param(update(b"\x40\x01\x01\x07", b""), 3, 1, id="malformed, and no routes to withdraw"),
    ],
)
def test_session_reset(whole, code, subcode):
    with pytest.raises(ProtocolError) as caught:
        accepted_update(whole, EXTERNAL)
    assert (caught.value.code, caught.value.subcode) == (code, subcode)


@pytest.mark.parametrize(
    ("data", "code", "subcode", "told"),
    [
        (b"\x00" * 19, 1, 1, b""),
        (b"\xff" * 15 + b"\x00", 1, 1, b""),
        (b"\xff" * 16 + b"\x00\x13\x06", 1, 3, b"\x06"),
        (b"\xff" * 16 + b"\x00\x13\x00", 1, 3, b"\x00"),
        (b"\xff" * 16 + b"\x00\x12\x04", 1, 2, b"\x00\x12"),
        (b"\xff" * 16 + b"\x10\x01\x02", 1, 2, b"\x10\x01"),
        (b"\xff" * 16 + b"\x00\x14\x04", 1, 2, b"\x00\x14"),
        (b"\xff" * 16 + b"\x00\x1c\x01", 1, 2, b"\x00\x1c"),
        (b"\xff" * 16 + b"\x00\x16\x02", 1, 2, b"\x00\x16"),
        (b"\xff" * 16 + b"\x00\x14\x03", 1, 2, b"\x00\x14"),
        (b"\xff" * 16 + b"\x00\x18\x05", 1, 2, b"\x00\x18"),
    ],
)
def test_headers(data, code, subcode, told):
    with pytest.raises(ProtocolError) as caught:
        split(data)
    assert (caught.value.code, caught.value.subcode, caught.value.data) == (code, subcode, told)


def test_messages_are_cut_where_they_end():
    keepalive = message(messages.KEEPALIVE, b"")
    assert split(keepalive[:18]) == (None, keepalive[:18])
    assert split(keepalive + b"\xff") == (keepalive, b"\xff")
    assert split(b"") == (None, b"")


def opened(parameters=b"", version=4, hold=90, identifier=b"\x0a\x00\x01\x02", length=None):
    head = bytes([version]) + b"\xfd\xe9" + hold.to_bytes(2, "big") + identifier
    return message(1, head + bytes([len(parameters) if length is None else length]) + parameters)


@pytest.mark.parametrize(
    ("whole", "code", "subcode"),
    [
        pytest.param(opened(version=3), 2, 1, id="version 3"),
        pytest.param(opened(identifier=bytes(4)), 2, 3, id="identifier 0"),
        pytest.param(opened(hold=2), 2, 6, id="hold time 2"),
        pytest.param(opened(b"\x01\x00"), 2, 4, id="authentication"),
        pytest.param(opened(b"", length=7), 2, 0, id="parameters beyond the end"),
        pytest.param(opened(b"\x02\x06\x01\x04\x00\x01\x00\x01", length=4), 2, 0, id="more than said"),
        pytest.param(opened(b"\x02\x05\x01\x04\x00\x01\x00"), 2, 0, id="a capability beyond its parameter"),
        pytest.param(opened(b"\x02\x04\x41\x02\x00\x01"), 2, 0, id="AS number of two bytes"),
        pytest.param(opened(b"\x02\x05\x40\x03\x00\x78\x00"), 2, 0, id="graceful restart of three bytes"),
        pytest.param(opened(b"\x02"), 2, 0, id="half a parameter"),
        pytest.param(opened(b"\xff", length=255), 2, 0, id="extended, without a length"),
    ],
)
def test_opens(whole, code, subcode):
    with pytest.raises(ProtocolError) as caught:
        accepted_open(whole)
    assert (caught.value.code, caught.value.subcode) == (code, subcode)


def test_capabilities_come_one_by_one_and_unknown_ones_are_left_out():
    together = b"\x02\x12\x01\x04\x00\x01\x00\x01\x49\x02ab\x41\x04\x00\x00\xfd\xe9\x02\x00"
    apart = b"\x02\x06\x01\x04\x00\x01\x00\x01\x02\x06\x41\x04\x00\x00\xfd\xe9\x02\x02\x02\x00"
    assert accepted_open(opened(together)) == opened(apart)
    extended = b"\xff" + len(b"\x02\x00\x12" + together[2:]).to_bytes(2, "big") + b"\x02\x00\x12" + together[2:]
    assert accepted_open(opened(extended, length=255)) == opened(apart)
