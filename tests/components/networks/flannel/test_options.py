import pytest

from kubewire.components.networks.flannel.options import OptionError, parse

NEEDED = ["--kube-subnet-mgr", "--hostname-override", "worker-1"]


def test_defaults_are_upstreams():
    options = parse(NEEDED, {})
    assert options.net_config_path == "/etc/kube-flannel/net-conf.json"
    assert options.subnet_file == "/run/flannel/subnet.env"
    assert (options.ip_masq, options.iptables_forward_rules, options.iptables_resync) == (False, True, 5)
    assert (options.healthz_ip, options.healthz_port) == ("0.0.0.0", 0)


def test_booleans_are_written_as_in_go():
    assert parse([*NEEDED, "--ip-masq"], {}).ip_masq
    assert parse([*NEEDED, "--ip-masq=true"], {}).ip_masq
    assert not parse([*NEEDED, "--iptables-forward-rules=false"], {}).iptables_forward_rules


def test_interfaces_repeat_in_order():
    assert parse([*NEEDED, "--iface", "eth1", "--iface=172.18.0.3"], {}).iface == ("eth1", "172.18.0.3")


def test_the_environment_gives_what_flags_do_not():
    environment = {"NODE_NAME": "worker-2", "FLANNELD_KUBE_SUBNET_MGR": "true", "FLANNELD_IP_MASQ": "true"}
    environment |= {"FLANNELD_IFACE": "eth1", "FLANNELD_HEALTHZ_PORT": "10254"}
    options = parse([], environment)
    assert (options.node_name, options.ip_masq, options.iface, options.healthz_port) == (
        "worker-2", True, ("eth1",), 10254,
    )  # fmt: skip
    assert not parse(["--ip-masq=false"], environment).ip_masq


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--hostname-override", "a"], "--kube-subnet-mgr is needed"),
        (["--kube-subnet-mgr"], "pass --hostname-override or set NODE_NAME"),
        ([*NEEDED, "--healthz-port", "x"], "are numbers"),
    ],
)
def test_what_is_missing_is_named(argv, said):
    with pytest.raises(OptionError, match=said):
        parse(argv, {})
