"""aws-node's variables: each of upstream's documentation does what it says, changes nothing, or is refused by name."""

import json

import pytest

from kubewire.components.kernel.iptables import transaction
from kubewire.components.networks.aws_vpc_cni import dataplane, install
from kubewire.components.networks.aws_vpc_cni.environment import VARIABLES, Configuration, problems, skipped
from kubewire.components.networks.aws_vpc_cni.main import parse
from kubewire.components.networks.aws_vpc_cni.pool import Eni, NoAddress, Pool, Targets


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "EXCLUDE_SNAT_CIDRS",
            "10.0.0.0/8",
            "no variable of aws-node; did you mean AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS?",
        ),
        ("ENABLE_IPV4", "true", "no variable of aws-node; did you mean ENABLE_IPv4?"),
        ("QUITE_ANOTHER_THING", "1", "QUITE_ANOTHER_THING is no variable of aws-node"),
        ("ENABLE_POD_ENI", "true", "only 'false' is possible here, because there are no branch interfaces here"),
        ("AWS_EC2_ENDPOINT", "http://127.0.0.1", "cannot be set here, because EC2's API has one address here"),
        ("WARM_IP_TARGET", "many", "must be a number from 0, not 'many'"),
        ("AWS_VPC_ENI_MTU", "9002", "must be a number from 576 to 9001, not '9002'"),
        ("DISABLE_POD_V6", "perhaps", 'must be "true" or "false", not \'perhaps\''),
        ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "always", "must be one of hashrandom, prng, none, not 'always'"),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "eth", "none of eth, vlan, lo"),
        ("INTROSPECTION_BIND_ADDRESS", "unix:/run/x", "must be HOST:PORT"),
    ],
)
def test_what_is_not_possible_is_named(name: str, value: str, said: str) -> None:
    (text,) = problems({name: value})
    assert text.startswith(name) and said in text


def test_an_empty_value_is_none() -> None:
    assert Configuration.of(dict.fromkeys(VARIABLES, "")) == Configuration(plugin_log="")


def test_the_agent_refuses_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--limits=3,6", "--env=WARM_ENI_TARGETS=1"])
    assert "did you mean WARM_ENI_TARGET?" in capsys.readouterr().err


RULES = {
    "AWS_VPC_K8S_CNI_RANDOMIZESNAT": ("none", "--to-source 172.18.0.3\n"),
    "AWS_VPC_K8S_CNI_VETHPREFIX": ("aws", "-i aws+"),
    "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": (
        "0.0.0.0/0",
        '-A AWS-SNAT-CHAIN-0 -m comment --comment "AWS SNAT CHAIN EXCLUSION"',
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_the_rules_follow_the_variable(name: str) -> None:
    value, wanted = RULES[name]

    def text(environment: dict[str, str]) -> str:
        return transaction(dataplane.rules("172.18.0.0/16", "172.18.0.3", "eth0", Configuration.of(environment)), {})

    assert wanted in text({name: value}) and wanted not in text({})


def test_without_node_ports_their_connections_are_not_marked() -> None:
    wanted = Configuration.of({"AWS_VPC_CNI_NODE_PORT_SUPPORT": "false"})
    text = transaction(dataplane.rules("172.18.0.0/16", "172.18.0.3", "eth0", wanted), {})
    assert "--limit-iface-in" not in text and '-i eni+ -m comment --comment "AWS, primary ENI"' in text


def test_what_is_no_range_is_skipped_by_name() -> None:
    environment = {"AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": "10.0.0.1/8,fd00::/64,x,10.1.2.3"}
    assert Configuration.of(environment).excluded == ("10.0.0.0/8",)
    assert skipped(environment) == ["fd00::/64", "x", "10.1.2.3"]


def test_the_conflist_follows_the_variables() -> None:
    environment = {"ENABLE_BANDWIDTH_PLUGIN": "true", "DISABLE_POD_V6": "true", "AWS_VPC_K8S_PLUGIN_LOG_LEVEL": "INFO"}
    aws, _, *more = json.loads(install.conflist(1300, Configuration.of(environment)))["plugins"]
    assert (aws["mtu"], aws["pluginLogLevel"]) == ("1300", "INFO")
    assert [one["type"] for one in more] == ["bandwidth", "tuning"]


def test_the_cooldown_is_the_variables() -> None:
    seconds = Configuration.of({"IP_COOLDOWN_PERIOD": "5"}).cooldown
    pool = Pool(Targets(), max_enis=1, slots=1, cooldown=seconds)
    pool.enis["eni-1"] = Eni("eni-1", 0, "02:1", "10.0.0.4", "10.0.0.0/24", ["10.0.0.5"])
    pool.assign("a", 0.0)
    pool.release("a", 1.0)
    with pytest.raises(NoAddress):
        pool.assign("b", 5.9)
    assert pool.assign("b", 6.0).address == "10.0.0.5"
