"""Link steps: what tc is told, and what it does to packets."""

from pathlib import Path

import pytest

from kubewire.scenarios.engine.file import faults
from kubewire.scenarios.engine.file.document import SpecError
from kubewire.scenarios.engine.loader import load
from tests.scenarios.test_scenario_runs import recorded
from tests.scratch import isolated

_LIMITED = "qdisc tbf 5: root refcnt 2 rate 100Mbit burst 15000b lat 1ms\n"
_FAULTY = "qdisc netem 4b57: root refcnt 2 limit 1000 delay 100ms\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"delay": "100ms"}, "netem delay 100ms"),
        ({"delay": "1s", "jitter": "10ms"}, "netem delay 1000ms 10ms"),
        ({"loss": "10%", "duplicate": "1%"}, "netem loss 10% duplicate 1%"),
        ({"delay": "10ms", "reorder": "25%"}, "netem delay 10ms reorder 25%"),
        ({"delay": "10ms", "rate": "1mbit"}, "netem delay 10ms rate 1mbit"),
        ({"rate": "1mbit"}, "tbf rate 1mbit burst 32kb latency 400ms"),
    ],
)
def test_a_fault_is_netem_and_a_rate_alone_is_tbf(args: dict[str, str], words: str) -> None:
    assert " ".join(faults.discipline(args)) == words


@pytest.mark.parametrize(
    ("shown", "place"),
    [("", "root"), ("qdisc noqueue 0: root refcnt 2\n", "root"), (_LIMITED, "parent 5:1"), (_FAULTY, "root")],
    ids=["nothing there", "noqueue", "the lab's bandwidth", "an earlier step's"],
)
def test_a_fault_goes_below_the_labs_bandwidth_and_over_an_earlier_one(shown: str, place: str) -> None:
    assert " ".join(faults.install("eth0", shown, {"delay": "1ms"})) == (
        f"tc qdisc replace dev eth0 {place} handle 4b57: netem delay 1ms"
    )


def test_only_what_a_step_has_put_there_is_removed() -> None:
    assert faults.remove("eth0", _LIMITED) == []
    assert faults.remove("eth0", _FAULTY) == ["tc", "qdisc", "del", "dev", "eth0", "root"]
    below = _LIMITED + "qdisc netem 4b57: parent 5:1 limit 1000 delay 1ms\n"
    assert faults.remove("eth0", below) == ["tc", "qdisc", "del", "dev", "eth0", "parent", "5:1"]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{on: worker-1}", "needs one of delay, loss, duplicate, corrupt, reorder, rate, or restore: true"),
        ("{on: worker-1, reorder: 10%}", "reorder needs delay"),
        ("{on: worker-1, restore: true, delay: 1s}", "restore cannot be combined with delay"),
        ("{on: worker-1, loss: '0.5'}", "a share such as 10%"),
        ("{on: worker-1, rate: '10'}", "a rate such as 512kbit or 10mbit"),
    ],
)
def test_a_mistake_in_a_link_step_is_named(tmp_path: Path, step: str, said: str) -> None:
    file = tmp_path / "x.scenario.yaml"
    file.write_text(f"name: x\ntitle: t\nsteps:\n  - link: {step}\n")
    with pytest.raises(SpecError, match=said):
        load(file)


@pytest.mark.parametrize(
    ("step", "features"),
    [("{on: worker-1, delay: 1ms}", ("netem",)), ("{on: worker-1, rate: 1mbit}", ("tbf",))],
    ids=["delay", "rate"],
)
def test_a_case_requires_what_its_link_steps_need(tmp_path: Path, step: str, features: tuple[str, ...]) -> None:
    file = tmp_path / "x.scenario.yaml"
    file.write_text(f"name: x\ntitle: t\nsteps:\n  - link: {step}\n")
    assert load(file)[0].requires == features


@pytest.mark.packet
def test_a_rate_is_kept_and_taken_back() -> None:
    """60 packets of 1,400 bytes at 100 kbit/s: what the bucket does not hold waits, some for over 100 ms."""

    def body() -> tuple[str, str]:
        result, _, _ = recorded(
            "steps:\n"
            "  - link: {on: worker-1, rate: 100kbit}\n"
            "  - expect: {from: worker-1, exec: {command: tc qdisc show dev eth0, contains: tbf 4b57}}\n"
            "  - exec: {from: worker-1, save: sent, exit: any,"
            ' command: "ping -n -q -c 60 -i 0.002 -s 1400 -W 5 ${host/worker-2.ip}"}\n'
            '  - expect: {from: worker-1, exec: {command: [echo, "${sent}"], matches: "= [0-9.]+/[0-9.]+/[0-9]{3,}[.]"}}\n'
        )
        (case,) = result.cases
        return case.status, case.problem

    status, problem = isolated(body)
    assert status == "passed", problem
