"""KubeProxyConfiguration and the flags: what is read, written, defaulted and refused, with upstream's texts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from kubewire.components.kube_proxy import main
from kubewire.components.kube_proxy.configuration import flags
from kubewire.components.kube_proxy.configuration.config import (
    ConfigError,
    ConntrackSettings,
    DetectLocal,
    IptablesSettings,
    IpvsSettings,
    KubeProxyConfiguration,
    NftablesSettings,
    dump,
    load,
)
from kubewire.components.kube_proxy.configuration.configfile import ConfigFileChanged, until_changed
from kubewire.components.kube_proxy.configuration.validation import validate

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


def read(tmp_path: Path, body: str) -> KubeProxyConfiguration:
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + body)
    return load(str(path))


def test_a_configuration_file_is_decoded(tmp_path):
    config = read(
        tmp_path,
        "mode: iptables\nclusterCIDR: 10.244.0.0/16\nnodePortAddresses: [primary]\n"
        "iptables: {syncPeriod: 10s, localhostNodePorts: false}\nconntrack: {maxPerCore: null, tcpBeLiberal: true}\n",
    )
    assert config.cluster_cidr == "10.244.0.0/16"
    assert (config.sync_period, config.min_sync_period) == (10.0, 1.0)
    assert not config.iptables.localhost_node_ports
    assert config.conntrack.tcp_be_liberal
    assert config.conntrack.max_per_core == 32768
    assert config.node_port_addresses == ("primary",)


def test_every_section_has_its_fields(tmp_path):
    config = read(
        tmp_path,
        "mode: ipvs\nipvs: {scheduler: lc, strictARP: true, excludeCIDRs: [10.0.0.0/8], tcpFinTimeout: 5s}\n"
        "nftables: {masqueradeBit: 7, masqueradeAll: true, syncPeriod: 1m, minSyncPeriod: 2s}\n"
        "winkernel: {networkName: n, sourceVip: v, enableDSR: true, rootHnsEndpointName: e, forwardHealthCheckVip: true}\n"
        "logging: {format: json, verbosity: 3, flushFrequency: 5s, options: {text: {infoBufferSize: '0'}}}\n"
        "detectLocal: {bridgeInterface: cni0, interfaceNamePrefix: veth}\nfeatureGates: {Some: true}\n"
        "enableProfiling: true\nshowHiddenMetricsForVersion: '1.35'\nportRange: 1-2\nwindowsRunAsService: false\n",
    )
    assert config.ipvs == IpvsSettings(30.0, 0.0, "lc", ("10.0.0.0/8",), True, 0.0, 5.0, 0.0)
    assert config.nftables == NftablesSettings(7, True, 60.0, 2.0)
    assert config.winkernel.enable_dsr
    assert config.logging.verbosity == 3
    assert config.detect_local == DetectLocal("cni0", "veth")
    assert (config.sync_period, config.min_sync_period) == (30.0, 0.0), "those of the mode"
    validate(config)


def test_zero_periods_and_missing_ports_mean_the_defaults(tmp_path):
    config = read(
        tmp_path,
        "iptables: {syncPeriod: 0s, minSyncPeriod: 0s}\nbindAddress: 'fd00::5'\nhealthzBindAddress: ''\n"
        "metricsBindAddress: 127.0.0.9\n",
    )
    assert (config.sync_period, config.min_sync_period) == (30.0, 1.0)
    assert (config.healthz_bind_address, config.metrics_bind_address) == ("[::]:10256", "127.0.0.9:10249")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("clusterCidr: 10.0.0.0/8\n", 'strict decoding error: unknown field "clusterCidr"'),
        ("iptables: {syncperiod: 1s}\n", 'strict decoding error: unknown field "iptables.syncperiod"'),
        ("ipvs: {algorithm: rr}\n", 'strict decoding error: unknown field "ipvs.algorithm"'),
        ("iptables: {syncPeriod: fast}\n", "iptables.syncPeriod: Invalid value: 'fast'"),
        ("iptables: {masqueradeAll: 1}\n", "iptables.masqueradeAll: Invalid value: 1"),
    ],
)
def test_a_wrong_configuration_names_file_and_field(tmp_path, body: str, message: str):
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, body)
    assert str(raised.value).startswith(str(tmp_path / "config.yaml"))
    assert message in str(raised.value)


ROOT = "KubeProxyConfiguration"
REFUSED = [
    pytest.param(
        {"mode": "ebpf"},
        f'{ROOT}.Mode.ProxyMode: Invalid value: "ebpf": must be iptables, ipvs, nftables or blank '
        "(blank means the best-available proxy [currently iptables])",
        id="mode",
    ),
    pytest.param(
        {"cluster_cidr": "10.244.0.0"},
        f'{ROOT}.DetectLocalConfiguration.ClusterCIDRs[0]: Invalid value: "10.244.0.0": must be a valid CIDR block '
        "(e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)",
        id="no CIDR",
    ),
    pytest.param(
        {"cluster_cidr": "10.244.0.0/16,10.245.0.0/16"},
        f'{ROOT}.DetectLocalConfiguration.ClusterCIDRs: Invalid value: ["10.244.0.0/16","10.245.0.0/16"]: must be a '
        "either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]",
        id="two CIDRs of one family",
    ),
    pytest.param(
        {"detect_local_mode": "Guess"},
        f'{ROOT}.DetectLocalMode: Unsupported value: "Guess": supported values: "", "BridgeInterface", "ClusterCIDR", '
        '"InterfaceNamePrefix", "NodeCIDR"',
        id="detectLocalMode",
    ),
    pytest.param(
        {"detect_local_mode": "BridgeInterface"},
        f'{ROOT}.DetectLocalConfiguration.InterfaceName: Invalid value: "": must not be empty',
        id="no bridge named",
    ),
    pytest.param(
        {"iptables": IptablesSettings(sync_period=0.5)},
        f"{ROOT}.SyncPeriod: Invalid value: 1s: must be greater than or equal to {ROOT}.MinSyncPeriod",
        id="minSyncPeriod above syncPeriod",
    ),
    pytest.param(
        {"iptables": IptablesSettings(masquerade_bit=32)},
        f"{ROOT}.KubeProxyIPTablesConfiguration.MasqueradeBit: Invalid value: 32: must be within the range [0, 31]",
        id="masqueradeBit",
    ),
    pytest.param(
        {"conntrack": ConntrackSettings(max_per_core=-1)},
        f"{ROOT}.KubeProxyLinuxConfiguration.KubeProxyConntrackConfiguration.MaxPerCore: Invalid value: -1: "
        "must be greater than or equal to 0",
        id="maxPerCore",
    ),
    pytest.param(
        {"conntrack": ConntrackSettings(udp_timeout=-5.0)},
        f"{ROOT}.KubeProxyLinuxConfiguration.KubeProxyConntrackConfiguration.UDPTimeout: Invalid value: -5s: "
        "must be greater than or equal to 0",
        id="udpTimeout",
    ),
    pytest.param(
        {"oom_score_adj": 1001},
        f"{ROOT}.KubeProxyLinuxConfiguration.OOMScoreAdj: Invalid value: 1001: must be within the range [-1000, 1000]",
        id="oomScoreAdj",
    ),
    pytest.param(
        {"healthz_bind_address": "0.0.0.0"},
        f'{ROOT}.HealthzBindAddress: Invalid value: "0.0.0.0": must be IP:port',
        id="no port",
    ),
    pytest.param(
        {"metrics_bind_address": "[::1]:70000"},
        f'{ROOT}.MetricsBindAddress: Invalid value: "70000": must be a valid port',
        id="no such port",
    ),
    pytest.param(
        {"node_port_addresses": ("primary", "10.0.0.0/8")},
        f"{ROOT}.NodePortAddresses[0]: Invalid value: \"primary\": can't use both 'primary' and CIDRs",
        id="primary and more",
    ),
    pytest.param(
        {"node_port_addresses": ("10.0.0.1",)},
        f'{ROOT}.NodePortAddresses[0]: Invalid value: "10.0.0.1": must be a valid CIDR',
        id="nodePortAddresses",
    ),
    pytest.param(
        {"show_hidden_metrics_for_version": "1.20"},
        f'{ROOT}.ShowHiddenMetricsForVersion: Invalid value: "1.20": --show-hidden-metrics-for-version must be omitted '
        "or have the value '1.35'. Only the previous minor version is allowed",
        id="hidden metrics",
    ),
    pytest.param(
        {"mode": "ipvs", "ipvs": IpvsSettings(exclude_cidrs=("all",))},
        f'{ROOT}.KubeProxyIPVSConfiguration.ExcludeCidrs[0]: Invalid value: "all": must be a valid CIDR',
        id="ipvs is looked at in its mode",
    ),
    pytest.param(
        {"port_range": "9-1"},
        f'{ROOT}.PortRange: Invalid value: "9-1": must be a valid port range (e.g. 300-2000)',
        id="portRange",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_what_upstream_refuses_is_refused_with_its_text(fields, message):
    with pytest.raises(ConfigError) as raised:
        validate(KubeProxyConfiguration(**fields))
    assert str(raised.value) == message


def test_all_faults_are_named_at_once():
    with pytest.raises(ConfigError) as raised:
        validate(KubeProxyConfiguration(oom_score_adj=2000, bind_address="here"))
    assert str(raised.value).startswith(f"[{ROOT}.KubeProxyLinuxConfiguration.OOMScoreAdj")
    assert 'BindAddress: Invalid value: "here": not a valid textual representation of an IP address]' in str(
        raised.value
    )


def test_a_wrong_flag_ends_the_start_with_a_sentence(capsys):
    assert main.main(["--proxy-mode", "ebpf"]) == 1
    assert (
        'kube-proxy: failed validate: KubeProxyConfiguration.Mode.ProxyMode: Invalid value: "ebpf"'
        in capsys.readouterr().err
    )


def test_flags_become_the_configuration():
    options = flags.parse(
        ["--hostname-override", " Worker-1 ", "--nodeport-addresses=10.0.0.0/8", "--masquerade-all",
         "--iptables-min-sync-period", "5s", "--conntrack-max-per-core", "0", "--feature-gates", "A=true,B=false",
         "--metrics-bind-address", "0.0.0.0", "--profiling", "-v", "5"]
    )  # fmt: skip
    config = options.config
    assert options.node_name == "worker-1"
    assert config.node_port_addresses == ("10.0.0.0/8",)
    assert config.iptables.masquerade_all
    assert config.iptables.min_sync_period == 5.0
    assert config.conntrack.max_per_core == 0
    assert config.feature_gates == {"A": True, "B": False}
    assert config.metrics_bind_address == "0.0.0.0:10249"
    assert config.enable_profiling
    assert options.verbosity == config.logging.verbosity == 5


def test_deprecated_ports_still_work_and_say_so(capsys):
    config = flags.parse(["--healthz-port", "0", "--metrics-port", "10250"]).config
    assert (config.healthz_bind_address, config.metrics_bind_address) == ("", "127.0.0.1:10250")
    assert "Flag --healthz-port has been deprecated" in capsys.readouterr().err


def test_in_nftables_mode_the_shared_flags_set_its_section():
    config = flags.parse(["--proxy-mode", "nftables", "--iptables-sync-period", "7s", "--masquerade-all"]).config
    assert (config.nftables.sync_period, config.sync_period) == (7.0, 7.0)
    assert config.nftables.masquerade_all


def test_with_a_file_flags_do_not_count_except_a_few(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + "mode: iptables\nlogging: {verbosity: 1}\nhostnameOverride: from-file\n")
    options = flags.parse(
        ["--config", str(path), "--proxy-mode", "ipvs", "--kubeconfig", "/k", "-v", "4", "--hostname-override", "me"]
    )
    assert options.config.mode == "iptables"
    assert options.config.client_connection.kubeconfig == "/k"
    assert (options.verbosity, options.node_name) == (4, "me")


def test_the_written_configuration_has_every_field_and_is_read_back(tmp_path):
    path = tmp_path / "written.yaml"
    assert (
        main.main(["--write-config-to", str(path), "--cluster-cidr", "10.244.0.0/16", "--hostname-override", "n"]) == 0
    )
    text = path.read_text()
    written = yaml.safe_load(text)
    assert list(written) == sorted(written)
    assert written["conntrack"] == {
        "maxPerCore": 32768, "min": 131072, "tcpBeLiberal": False, "tcpCloseWaitTimeout": "1h0m0s",
        "tcpEstablishedTimeout": "24h0m0s", "udpStreamTimeout": "0s", "udpTimeout": "0s",
    }  # fmt: skip
    assert written["clientConnection"]["qps"] == 5
    assert (written["mode"], written["detectLocalMode"]) == ("iptables", "ClusterCIDR")
    assert dump(load(str(path))) == text


@pytest.mark.parametrize("change", ["written", "moved away"])
def test_a_changed_file_ends_the_proxy(tmp_path, change):
    path = tmp_path / "config.yaml"
    path.write_text(HEAD)

    async def scenario() -> None:
        watching = asyncio.ensure_future(until_changed(str(path)))
        # The watch stands once the task has run up to its first wait.
        await asyncio.sleep(0)
        if change == "written":
            path.write_text(HEAD + "mode: iptables\n")
        else:
            path.rename(tmp_path / "elsewhere")
        await asyncio.wait_for(watching, 5)

    with pytest.raises(ConfigFileChanged, match="configuration file was updated"):
        asyncio.run(scenario())


def test_reading_a_file_is_no_change(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(HEAD)

    async def scenario() -> bool:
        watching = asyncio.ensure_future(until_changed(str(path)))
        await asyncio.sleep(0)
        path.read_text()
        done, _ = await asyncio.wait([watching], timeout=0.2)
        watching.cancel()
        return not done

    assert asyncio.run(scenario())
