"""What verbs make of what programs print: conntrack, iptables-save, probe results, counts and texts."""

import pytest

from kubewire.scenarios.engine.scene.scene import End
from kubewire.scenarios.engine.verbs.base import Count, text_problem
from kubewire.scenarios.engine.verbs.conntrack import parse
from kubewire.scenarios.engine.verbs.probes import Dns, Http, Ping, Tcp, Udp
from kubewire.scenarios.engine.verbs.rules import Rules, Ruleset, parse_rule, tables

CONNTRACK = """\
tcp      6 86398 ESTABLISHED src=10.244.1.2 dst=10.96.0.5 sport=40000 dport=80 src=10.244.2.3 dst=10.244.1.2 sport=8080 dport=40000 [ASSURED] mark=0 use=1
udp      17 29 src=10.244.1.2 dst=10.96.0.10 sport=5000 dport=53 [UNREPLIED] src=10.244.2.9 dst=10.244.1.2 sport=53 dport=5000 mark=0 use=1
tcp      6 100 TIME_WAIT src=203.0.113.10 dst=172.18.0.3 sport=999 dport=30080 src=10.244.2.3 dst=10.244.1.0 sport=8080 dport=1234 [ASSURED] mark=0 use=1
icmp     1 29 src=1.1.1.1 dst=2.2.2.2 type=8 code=0 id=7 src=2.2.2.2 dst=1.1.1.1 type=0 code=0 id=7 mark=0 use=1
conntrack v1.4.7 (conntrack-tools): 4 flow entries have been shown.
"""


def test_conntrack_entries_say_how_they_translate():
    entries = list(parse(CONNTRACK))
    assert [(entry.protocol, entry.state, entry.nat) for entry in entries] == [
        ("tcp", "ESTABLISHED", "destination"),
        ("udp", "", "destination"),
        ("tcp", "TIME_WAIT", "both"),
        ("icmp", "", "none"),
    ]
    assert entries[1].flags == ("UNREPLIED",)
    assert str(entries[0]) == (
        "tcp ESTABLISHED 10.244.1.2:40000 -> 10.96.0.5:80, answers 10.244.2.3:8080 -> 10.244.1.2:40000 (NAT destination)"
    )


RULES = """\
*filter
-A FORWARD -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.5/32 -p tcp -m comment --comment "default/web" -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-SVC-A
-A KUBE-SVC-A ! -s 10.244.0.0/16 -d 10.96.0.5/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-1
-A KUBE-SVC-A -j KUBE-SEP-2
-A KUBE-SEP-1 -p tcp -j DNAT --to-destination 10.244.1.2:8080
-A KUBE-SEP-2 -p tcp -j DNAT --to-destination 10.244.2.2:8080
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
COMMIT
"""


def reached(**packet):
    ruleset = Ruleset(tuple(parse_rule(line) for line in tables(RULES)["nat"]))
    return [rule.target for _, rule in ruleset.walk("PREROUTING", packet)]


def test_a_walk_follows_the_jumps_that_the_packet_can_take():
    pod = {"protocol": "tcp", "destination": "10.96.0.5", "dport": 80, "local": False}
    assert reached(**pod, source="10.244.3.3") == [
        "KUBE-SERVICES",
        "KUBE-SVC-A",
        "KUBE-SEP-1",
        "DNAT",
        "KUBE-SEP-2",
        "DNAT",
    ]
    assert "KUBE-MARK-MASQ" in reached(**pod, source="203.0.113.10")


def test_a_walk_ends_where_the_packet_surely_has_its_verdict():
    # local is not known: without an end the walk would go on to KUBE-NODEPORTS, where no such packet ever comes.
    steps = reached(protocol="tcp", source="10.244.3.3", destination="10.96.0.5", dport=80)
    assert steps[-2:] == ["KUBE-SEP-2", "DNAT"]


@pytest.mark.parametrize(
    "match",
    [
        "-m statistic --mode random --probability 0.5",
        "-m conntrack --ctstate NEW",
        "-m addrtype --dst-type LOCAL",
        "-m addrtype ! --dst-type LOCAL",
        "-m tcp ! --dport 80",
        "-i eth0",
    ],
)
def test_a_verdict_that_may_not_apply_does_not_end_the_walk(match):
    lines = [f"-A PREROUTING -p tcp {match} -j DNAT --to-destination 10.244.1.2:8080", "-A PREROUTING -j LOG"]
    ruleset = Ruleset(tuple(map(parse_rule, lines)))
    assert [rule.target for _, rule in ruleset.walk("PREROUTING", {"protocol": "tcp"})] == ["DNAT", "LOG"]


SERVICE = "-A KUBE-EXT -m tcp -p tcp -j DNAT --to-destination 10.244.2.2:8080"
HOST_PORT = "-A CNI-DN -p tcp -m tcp --dport 30055 -j DNAT --to-destination 10.244.1.9:8080"
JUMPS = ["-A PREROUTING -m conntrack --ctstate NEW -j KUBE-EXT", "-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-DN"]


@pytest.mark.parametrize(
    ("jumps", "decides", "why"),
    [
        (JUMPS, "10.244.2.2", ""),
        (JUMPS[::-1], "10.244.1.9", ""),
        (JUMPS[::-1], "10.244.2.2", f"expected /10.244.2.2/ to decide, but the first verdict is {HOST_PORT}"),
        ([], "10.244.2.2", "no rule decides, expected /10.244.2.2/"),
    ],
)
def test_of_two_rules_for_one_packet_the_first_decides(jumps, decides, why):
    text = "\n".join(["*nat", *jumps, SERVICE, HOST_PORT, "COMMIT"])
    packet = {"chain": "PREROUTING", "protocol": "tcp", "destination": "172.18.0.3", "dport": 30055}
    seen = Rules(table="nat", walk=packet, decides=decides)._walked(text, "iptables-save")
    assert (seen.holds, seen.why) == (not why, why)


def test_return_leaves_only_its_own_chain():
    lines = ["-A PREROUTING -j A", "-A A -p tcp -j RETURN", "-A A -j DROP", "-A PREROUTING -j LOG"]
    ruleset = Ruleset(tuple(map(parse_rule, lines)))
    assert [rule.target for _, rule in ruleset.walk("PREROUTING", {"protocol": "tcp"})] == ["A", "RETURN", "LOG"]


@pytest.mark.parametrize(
    "packet",
    [
        {"protocol": "udp", "destination": "10.96.0.5", "dport": 80},
        {"protocol": "tcp", "destination": "10.96.0.5", "dport": 81},
        {"protocol": "tcp", "destination": "10.96.0.6", "dport": 80},
    ],
    ids=["protocol", "port", "address"],
)
def test_a_walk_leaves_out_what_the_packet_cannot_match(packet):
    assert reached(**packet, local=False) == ["KUBE-SERVICES"]


def test_a_node_port_is_reached_through_the_local_addresses():
    assert "KUBE-SVC-A" in reached(protocol="tcp", destination="172.18.0.3", dport=30080)


SOURCE = End("pod:a", "pod:ns/a", "10.244.1.2", "worker-1")
OK = {"several": [{"status": 200, "headers": {}, "body": "web-1\n", "ms": 3.0, "local": "a", "remote": "b"}]}
REFUSED = {"error": "refused", "message": "Connection refused", "ms": 1.0}


@pytest.mark.parametrize(
    ("args", "result", "why"),
    [
        ({}, OK, ""),
        ({"equals": "web-1"}, OK, ""),
        ({"matches": "^web-2$"}, OK, 'nothing matches /^web-2$/ in "web-1"'),
        ({"status": 404}, OK, 'expected status 404, got 200 "web-1'),
        ({"error": "refused"}, {"several": [REFUSED]}, ""),
        ({"error": "any"}, {"several": [REFUSED]}, ""),
        ({"error": "timeout"}, {"several": [REFUSED]}, "expected timeout, got refused: Connection refused"),
        ({"error": "refused"}, OK, "expected it to fail (refused), but got 200"),
        ({}, {"several": [REFUSED]}, "refused: Connection refused"),
        ({"repeat": 2, "distinct": {"min": 2}}, {"several": OK["several"] * 2}, "expected 2 or more different answers, got 1: web-1"),
    ],
)  # fmt: skip
def test_http_is_judged_by_status_text_and_error(args, result, why):
    seen = Http.read({"url": "http://web/x", **args}).judge(result, SOURCE)
    assert seen.why.startswith(why) and seen.holds is (not why)


def test_what_a_person_can_type_is_part_of_the_evidence():
    assert (
        Http.read({"url": "http://web/x", "timeout": "2s"}).judge(OK, SOURCE).command
        == "kubectl exec -n ns a -- curl -sS -m 2 http://web/x"
    )
    node = End("worker-1", "worker-1")
    assert (
        Ping.read({"to": "10.0.0.1"}).judge({**REFUSED}, node).command
        == "kubewire node worker-1 -- ping -c1 -W1 10.0.0.1"
    )
    assert "nc -u -w 2 10.0.0.1 53" in Udp.read({"to": "10.0.0.1:53"}).judge({"body": "x", "ms": 1.0}, node).command


def test_a_port_may_come_as_a_reference_and_so_as_text():
    assert Http.read({"to": "10.0.0.1", "port": "30080"}).request()["port"] == 30080
    assert Tcp.read({"to": "10.0.0.1:80"}).request()["port"] == 80


def answer(rcode="NOERROR", answers=(), authority=()):
    records = [{"name": "n.", "type": kind, "ttl": 5, "data": data} for kind, data in answers]
    soa = [{"name": "z.", "type": "SOA", "ttl": 5, "data": "ns"} for _ in authority]
    return {"rcode": rcode, "answers": records, "authority": soa, "server": "s", "asked": [], "name": "n.", "ms": 1.0}


@pytest.mark.parametrize(
    ("args", "result", "holds"),
    [
        ({}, answer(answers=[("A", "1.1.1.1")]), True),
        ({}, answer(), False),
        ({"answers": ["1.1.1.1"]}, answer(answers=[("CNAME", "x."), ("A", "1.1.1.1")]), True),
        ({"answers": ["1.1.1.1"]}, answer(answers=[("A", "1.1.1.1"), ("A", "1.1.1.2")]), False),
        ({"rcode": "NXDOMAIN"}, answer("NXDOMAIN"), True),
        ({"rcode": "NXDOMAIN"}, answer(answers=[("A", "1.1.1.1")]), False),
        ({"count": 0}, answer(), True),
        ({"count": 0, "authority": True}, answer(), False),
        ({"contains": "CNAME x."}, answer(answers=[("CNAME", "x.")]), True),
    ],
)
def test_dns_is_judged_by_code_and_records(args, result, holds):
    assert Dns.read({"name": "n", **args}).judge(result, SOURCE).holds is holds


@pytest.mark.parametrize(
    ("value", "fits", "said"),
    [
        (0, [0], "exactly 0"),
        (2, [2], "exactly 2"),
        ({"min": 1}, [1, 2, 3], "1 or more"),
        ({"max": 1}, [0, 1], "0 to 1"),
    ],
)
def test_counts(value, fits, said):
    count = Count.of(value)
    assert [number for number in range(4) if count.holds(number)] == fits
    assert str(count) == said


def test_texts():
    assert text_problem("a\nb", contains=["a"], matches=["^b$"], absent=["c"]) == ""
    assert text_problem("a", absent=["^a"]) == '/^a/ should not be there, but matches "a"'


@pytest.mark.parametrize(("wanted", "problem"), [(30555, ""), ("30555", ""), (30556, 'expected "30556", got "30555"')])
def test_a_number_may_be_expected_as_a_number(wanted, problem):
    assert text_problem("30555\n", equals=wanted) == problem
