"""br_netfilter is loaded when it is missing, and the machine's own bridges go on as before."""

from pathlib import Path

import pytest

from kubewire.lab.needs import bridge_netfilter

FAMILIES = ("ip", "ip6", "arp")


def loader(switches: Path) -> bool:
    """What the kernel does on modprobe: the switches appear, all on."""
    switches.mkdir()
    for family in FAMILIES:
        (switches / f"bridge-nf-call-{family}tables").write_text("1")
    return True


def test_loading_it_leaves_the_machines_own_bridges_unfiltered(tmp_path: Path) -> None:
    switches = tmp_path / "bridge"
    assert bridge_netfilter.ensure(switches, lambda: loader(switches), root=True)
    assert {(switches / f"bridge-nf-call-{family}tables").read_text() for family in FAMILIES} == {"0"}


def test_what_is_loaded_already_is_left_as_its_owner_has_it(tmp_path: Path) -> None:
    switches = tmp_path / "bridge"
    loader(switches)
    assert bridge_netfilter.ensure(switches, lambda: pytest.fail("nothing to load"), root=True)
    assert (switches / "bridge-nf-call-iptables").read_text() == "1"


@pytest.mark.parametrize(("root", "loads"), [(False, True), (True, False)], ids=["not root", "no such module"])
def test_without_it_nothing_is_changed(tmp_path: Path, root: bool, loads: bool) -> None:
    assert not bridge_netfilter.ensure(tmp_path / "bridge", lambda: loads, root=root)
    assert not (tmp_path / "bridge").exists()
