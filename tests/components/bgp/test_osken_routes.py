"""os-ken's tables as osken.install() leaves them: what a peer has said last holds, processed or not."""

from types import SimpleNamespace

import pytest
from os_ken.lib.packet import bgp
from os_ken.services.protocols.bgp.info_base.ipv4 import Ipv4Path, Ipv4Table

from components.bgp import osken
from tests.scratch import isolated

PREFIX = bgp.IPAddrPrefix(24, "10.9.1.0")


def mended(body, *arguments):
    """In a process of its own: install() changes os-ken for good."""

    def run():
        osken.install()
        return body(*arguments)

    return isolated(run)


class Source:
    def __init__(self):
        self.version_num, self.remote_as = 1, 65001


class Table:
    """A table with one destination, and which routes of it are known after it was processed."""

    def __init__(self, local_as=64512):
        peers = SimpleNamespace(comm_new_best_to_bgp_peers=lambda _: None)
        signals = SimpleNamespace(dest_changed=lambda _: None, best_path_changed=lambda *_: None)
        self.table = Ipv4Table(SimpleNamespace(asn=local_as, peer_manager=peers, _signal_bus=signals), signals)

    def insert(self, source, local_pref=100, *, withdraw=False):
        attributes = {
            bgp.BGP_ATTR_TYPE_ORIGIN: bgp.BGPPathAttributeOrigin(0),
            bgp.BGP_ATTR_TYPE_AS_PATH: bgp.BGPPathAttributeAsPath([[65001]]),
            bgp.BGP_ATTR_TYPE_LOCAL_PREF: bgp.BGPPathAttributeLocalPref(local_pref),
        }
        path = Ipv4Path(source, PREFIX, source.version_num, attributes, "10.0.1.2", is_withdraw=withdraw)
        self.table.insert(path)

    def known(self):
        destination = next(self.table.values(), None)
        if destination is None:
            return []
        destination.process()
        return [(one.source, one.get_pattr(bgp.BGP_ATTR_TYPE_LOCAL_PREF).value) for one in destination.known_path_list]


def withdrawn_before_it_is_processed():
    one, other, table = Source(), Source(), Table()
    table.insert(other, 50)
    table.known()
    table.insert(one)
    table.insert(one, withdraw=True)
    assert table.known() == [(other, 50)]


def announced_twice_before_it_is_processed():
    one, table = Source(), Table()
    table.insert(one, 200)
    table.insert(one, 150)
    assert table.known() == [(one, 150)]


def withdrawn_and_announced_again():
    one, table = Source(), Table()
    table.insert(one, 200)
    table.known()
    table.insert(one, withdraw=True)
    table.insert(one, 150)
    assert table.known() == [(one, 150)]


def withdrawn_without_being_there():
    one, other, table = Source(), Source(), Table()
    table.insert(other, 50)
    table.known()
    table.insert(one, withdraw=True)
    table.known()
    table.insert(one, 200)
    assert table.known() == [(other, 50), (one, 200)]
    assert table.known() == [(other, 50), (one, 200)]


def announced_right_before_its_session_ends():
    one, other, table = Source(), Source(), Table()
    table.insert(other, 50)
    table.known()
    table.insert(one)
    one.version_num += 1
    table.table.cleanup_paths_for_peer(one)
    assert table.known() == [(other, 50)]


def withdrawn_right_before_its_session_ends():
    one, other, table = Source(), Source(), Table()
    for source in (one, other):
        table.insert(source, 50)
    table.known()
    table.insert(one, withdraw=True)
    one.version_num += 1
    table.table.cleanup_paths_for_peer(one)
    table.insert(one, 200)
    assert table.known() == [(other, 50), (one, 200)]
    assert table.known() == [(other, 50), (one, 200)]


@pytest.mark.parametrize(
    "case",
    [
        withdrawn_before_it_is_processed,
        announced_twice_before_it_is_processed,
        withdrawn_and_announced_again,
        withdrawn_without_being_there,
        announced_right_before_its_session_ends,
        withdrawn_right_before_its_session_ends,
    ],
)
def test_the_last_word_of_a_peer_holds(case):
    mended(case)
