"""os-ken's tables as osken.install() leaves them: what a peer has said last holds, processed or not."""

import socket
import struct
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from os_ken.lib.packet import bgp
from os_ken.services.protocols.bgp import constants
from os_ken.services.protocols.bgp.base import Sink
from os_ken.services.protocols.bgp.core_managers.table_manager import TableCoreManager
from os_ken.services.protocols.bgp.info_base.ipv4 import Ipv4Path, Ipv4Table
from os_ken.services.protocols.bgp.model import OutgoingRoute
from os_ken.services.protocols.bgp.peer import Peer
from os_ken.services.protocols.bgp.processor import compute_best_path

from kubewire.components.bgp import osken, osken_routes
from kubewire.components.bgp.config import Configuration
from kubewire.components.bgp.config import Peer as ConfiguredPeer
from kubewire.components.bgp.session import Connection
from kubewire.components.bgp.speaker import Speaker
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


def bare_peer(table):
    """A Peer whose session sends into peer.sent."""
    peer = object.__new__(Peer)
    peer.sent, peer.version_num = [], 1
    Sink.__init__(peer)
    peer._out_filters, peer._adj_rib_out = [], {}
    peer._signal_bus = SimpleNamespace(adj_rib_out_changed=lambda *_: None)
    peer._protocol = SimpleNamespace(send=peer.sent.append, stop=lambda: None)
    peer.state = SimpleNamespace(incr=lambda *_: None, bgp_state=constants.BGP_FSM_ESTABLISHED)
    manager = object.__new__(TableCoreManager)
    manager.get_global_table_by_route_family = lambda _: table.table
    peer._core_service = SimpleNamespace(table_manager=manager)
    peer._construct_update = lambda route: route.path
    return peer


def sent_after_it_was_withdrawn():
    one, table = Source(), Table()
    peer = bare_peer(table)
    table.insert(one)
    table.known()
    (destination,) = table.table.values()
    peer.enque_outgoing_msg(OutgoingRoute(destination.best_path))
    destination.withdraw_if_sent_to(peer)
    while (message := peer.outgoing_msg_list.pop_first()) is not None:
        peer._send_outgoing_route(message)
    assert [path.is_withdraw for path in peer.sent] == [False, True]
    assert destination.sent_routes == []


def test_a_route_is_not_taken_for_sent_after_it_was_withdrawn():
    mended(sent_after_it_was_withdrawn)


def lost_while_routes_are_processed():
    peer = bare_peer(Table())
    peer._neigh_conf = SimpleNamespace(ip_address="10.0.1.2", name="tor", id="tor", enabled=False)
    peer._connect_retry_event = threading.Event()
    peer._rtc_eor_timer = None
    peer._peer_manager = SimpleNamespace(on_peer_down=lambda _: None)
    losing = threading.Thread(target=peer.connection_lost, args=("gone",))
    with osken._tables:
        losing.start()
        losing.join(0.3)
        assert peer.in_established()
        assert peer.protocol is not None
    losing.join()
    assert peer.protocol is None


def test_a_session_does_not_end_while_routes_are_processed():
    mended(lost_while_routes_are_processed)


def not_sent():
    listening = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listening.getsockname())
    theirs, _ = listening.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection = Connection(ours, None)
    told: list[Any] = []
    connection._peer = SimpleNamespace(connection_lost=told.append, state=SimpleNamespace(bgp_state=""), protocol=None)
    connection._peer.protocol = connection
    theirs.close()
    connection._send_with_lock(bgp.BGPKeepAlive())
    assert connection._peer is not None
    assert told == []
    assert ours.recv(1) == b""


def test_a_sending_thread_leaves_the_end_of_the_session_to_its_own_thread():
    mended(not_sent)


@pytest.mark.parametrize(
    ("local", "attributes"),
    [
        ("10.0.1.1", [bgp.BGPPathAttributeNextHop("10.0.1.1")]),
        ("fd00::1", [bgp.BGPPathAttributeMpReachNLRI(2, 1, "fd00::1", [bgp.IP6AddrPrefix(64, "fd00:9::")])]),
    ],
)
def test_our_address_is_no_next_hop(local, attributes):
    common = SimpleNamespace(router_id="10.0.1.1", cluster_id="10.0.1.1")
    peer = SimpleNamespace(_common_conf=common, local_as=64512, state=SimpleNamespace(local_ip=local))
    assert osken_routes.is_unusable(peer, bgp.BGPUpdate(path_attributes=attributes))
    peer.state.local_ip = "10.0.2.1"
    assert not osken_routes.is_unusable(peer, bgp.BGPUpdate(path_attributes=attributes))


def test_what_takes_the_place_of_ipv6_routes_is_withdrawn():
    prefix = bgp.IP6AddrPrefix(64, "fd00:9::")
    message = bgp.BGPUpdate(path_attributes=[bgp.BGPPathAttributeMpReachNLRI(2, 1, "fd00::1", [prefix])])
    (withdrawn,) = osken_routes.withdrawing(message).path_attributes
    assert withdrawn.route_family == bgp.RF_IPv6_UC
    assert [one.prefix for one in withdrawn.withdrawn_routes] == ["fd00:9::/64"]


def kept():
    speaker = Speaker(Configuration(64512, "10.0.1.1", listen=()), lambda _: None)
    wanted = ConfiguredPeer("tor", "10.0.1.2", 65001, passive=True)
    speaker.apply(Configuration(64512, "10.0.1.1", listen=(), peers=(wanted,)))
    peer = speaker._os_ken_peer("10.0.1.2")
    peer.adj_rib_out["10.9.1.0/24"] = peer.adj_rib_in["10.9.1.0/24"] = object()
    speaker._restart_times["10.0.1.2"] = 120
    speaker._down(peer)
    assert list(peer.adj_rib_in) == ["10.9.1.0/24"]
    speaker._notified.add("10.0.1.2")
    speaker._down(peer)
    return [*peer.adj_rib_in, *peer.adj_rib_out]


def test_no_prefix_is_kept_longer_than_its_session():
    assert mended(kept) == []


def path_of(identifier, *attributes):
    opened = SimpleNamespace(bgp_identifier=identifier)
    protocol = SimpleNamespace(recv_open_msg=opened, sent_open_msg=SimpleNamespace(bgp_identifier="10.0.1.1"))
    source = SimpleNamespace(version_num=1, remote_as=64512, protocol=protocol)
    given = [bgp.BGPPathAttributeOrigin(0), bgp.BGPPathAttributeAsPath([]), *attributes]
    return Ipv4Path(source, PREFIX, 1, {one.type: one for one in given}, "10.0.1.2")


def best(*paths):
    return compute_best_path(64512, *paths)[0]


def originators_decide():
    low, high = path_of("10.0.1.2"), path_of("10.0.1.3")
    assert best(low, high) is best(high, low) is low
    # RFC 4456, 9: the originator's identifier stands for the reflector's.
    reflected = path_of("10.0.1.9", bgp.BGPPathAttributeOriginatorId("10.0.1.1"))
    assert best(low, reflected) is best(reflected, low) is reflected
    passed = bgp.BGPPathAttributeOriginatorId("10.0.1.2"), bgp.BGPPathAttributeClusterList(["10.0.0.9"])
    longer = path_of("10.0.1.1", *passed)
    assert best(low, longer) is best(longer, low) is low


def test_the_originator_and_then_the_shorter_cluster_list_decide():
    mended(originators_decide)
