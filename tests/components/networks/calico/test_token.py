"""The plugin's token is renewed before it ends."""

import asyncio
import json
from typing import Any, cast

from kubewire.components.kubeapi import kubeconfig
from kubewire.components.networks.calico.agent import Agent, Options
from tests.components.apiserver.running import Authority


class Issuer:
    """Of the API server: TokenRequest."""

    def __init__(self) -> None:
        self.count = 0

    async def request(self, method: str, path: str, *, body: dict[str, Any]) -> bytes:
        assert (method, path) == ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/calico-cni-plugin/token")
        self.count += 1
        return json.dumps({"status": {"token": f"token-{self.count}", "asked": body}}).encode()


def test_a_token_is_asked_for_again_after_half_its_time(tmp_path, monkeypatch):
    config = tmp_path / "agent.conf"
    credentials = kubeconfig.Credentials(
        server="https://10.0.0.1:6443", ca=Authority(tmp_path).certificate.read_bytes()
    )
    config.write_text(kubeconfig.dump("lab", credentials, "calico-node"))
    now = [1000.0]
    monkeypatch.setattr("kubewire.components.networks.calico.agent.time.time", lambda: now[0])

    async def life() -> list[str]:
        issuer, seen = Issuer(), []
        options = Options(
            str(config), "worker-1", "eth0", cni_conf_dir=str(tmp_path), nodename_file=str(tmp_path / "nodename")
        )
        node = Agent(options, cast(Any, issuer))
        for seconds in (0.0, 12 * 3600 - 1.0, 2.0):
            now[0] += seconds
            if node.token_is_due():
                await node._install_kubeconfig()
            seen.append(json.loads((tmp_path / "calico-kubeconfig").read_text())["users"][0]["user"]["token"])
        return seen

    assert asyncio.run(life()) == ["token-1", "token-1", "token-2"]
    assert (tmp_path / "calico-kubeconfig").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "nodename").read_text() == "worker-1"
