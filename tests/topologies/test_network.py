"""A plan as a Mininet network: commands of any length reach a host's shell, and none is waited for for ever."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kubewire.topologies import network
from kubewire.topologies.plan import Interface, Machine, TopologyPlan
from tests.scratch import isolated

pytestmark = pytest.mark.packet

#: What a line of a terminal can have (N_TTY_BUF_SIZE of the kernel, less the line's end).
LONGEST_LINE = 4095


def one_host_with(interfaces: int) -> TopologyPlan:
    """Host "many" with that many cables to one switch, an address on each and a route behind each."""
    ports = tuple(
        Interface(f"eth{number}", (f"10.0.{number}.1/24",), switch="sw", port=f"sw-many-eth{number}")
        for number in range(interfaces)
    )
    routes = tuple((f"10.1.{number}.0/24", f"10.0.{number}.2") for number in range(interfaces))
    return TopologyPlan("free", (Machine("many", "outside", ports, routes),), ("sw",))


def built(interfaces: int) -> tuple[int, int, int]:
    """The ports of the switch, and the addresses and routes of the host, that the kernel has."""
    net = network.build(one_host_with(interfaces))
    host = net.get("many")
    ports = len(list(Path("/sys/class/net/sw/brif").iterdir()))
    addresses = host.cmd("ip -o -4 address show scope global").count("\n")
    return ports, addresses, host.cmd("ip -4 route").count(" via ")


def test_a_switch_and_a_host_have_more_ports_than_fit_into_a_line_of_a_terminal() -> None:
    ports = 120
    assert ports * len("link set sw-many-eth100 master sw up") > LONGEST_LINE
    assert isolated(built, ports, timeout=60) == (ports, ports, ports)


def in_a_host(body: Any, *arguments: Any) -> Any:
    """body's result with a host of one interface."""
    return body(network.build(one_host_with(1)).get("many"), *arguments)


def echoed(host: Any, length: int) -> int:
    return len(host.cmd(f"printf %s {'x' * length}"))


@pytest.mark.parametrize("length", [LONGEST_LINE - 100, LONGEST_LINE + 1, 300_000])
def test_a_command_of_any_length_arrives_whole(length: int) -> None:
    assert isolated(in_a_host, echoed, length) == length


def said_of(host: Any, command: str, stop: bool) -> str:
    network._PATIENCE = 0.2
    if stop:
        os.kill(host.pid, signal.SIGSTOP)
    with pytest.raises(network.CommandFailed) as error:
        host.run(command)
    assert (error.value.host, error.value.command) == ("many", command)
    return error.value.output


@pytest.mark.parametrize(
    ("command", "stop", "said"),
    [
        ("sleep 600", False, "it did not end within 0.2 s"),
        ("echo going to wait; sleep 600", False, "going to wait\nit did not end within 0.2 s"),
        (f": {'x' * 300_000}", True, "it did not end within 0.2 s"),
    ],
    ids=["that does not end", "that says something and does not end", "that its stopped shell does not take"],
)
def test_a_command_has_a_deadline_that_names_host_and_command(command: str, stop: bool, said: str) -> None:
    assert isolated(in_a_host, said_of, command, stop) == said
