"""Every controller acts under an account of its own, and collects the rules of aggregated roles."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubewire.components.apiserver.access.controllerroles import controller_roles
from kubewire.components.controllers.actions import Patch
from kubewire.components.controllers.clusterroleaggregation.plan import CLUSTERROLES, plan
from kubewire.components.controllers.identities import Identities, account_of
from kubewire.components.controllers.registry import CONTROLLERS
from kubewire.components.kubeapi.client import ApiError, Client
from kubewire.components.kubeapi.resources import NAMESPACES, SERVICEACCOUNTS, KubeObject
from tests.components.apiserver.running import RunningApiServer

#: Not upstream's: bring-up gives it the roles of its own manifest.
PROVISIONER = "local-path-provisioner"


@pytest.mark.parametrize("controller", sorted(CONTROLLERS.keys() - {PROVISIONER}))
def test_every_controller_has_an_account_with_a_role(controller: str) -> None:
    assert account_of(controller) in controller_roles()


def test_an_account_is_made_on_first_use_and_again_when_it_is_deleted() -> None:
    async def act(server: RunningApiServer) -> None:
        kubeconfig = server.kubeconfig_for("system:kube-controller-manager")
        async with Client.from_kubeconfig(server.kubeconfig) as admin, Client.from_kubeconfig(kubeconfig) as root:
            identities = Identities(root, own=True)
            client = identities.client("namespace-controller")
            assert identities.client("namespace-controller") is client
            assert (await client.get(NAMESPACES, "default"))["metadata"]["name"] == "default"
            await admin.delete(SERVICEACCOUNTS, "namespace-controller", "kube-system")
            assert (await client.list(NAMESPACES)).items
            with pytest.raises(ApiError) as error:
                await client.request("POST", SERVICEACCOUNTS.path("default"), body={"metadata": {"name": "x"}})
            assert 'User "system:serviceaccount:kube-system:namespace-controller" cannot create' in str(error.value)
            await identities.close()

    with RunningApiServer() as server:
        asyncio.run(act(server))


def role(name: str, rules: list[Any], labels: dict[str, str] | None = None, **more: Any) -> KubeObject:
    return {"metadata": {"name": name, "labels": labels or {}, "resourceVersion": "7"}, "rules": rules, **more}


A, B = ({"verbs": ["get"], "apiGroups": [""], "resources": [name]} for name in ("pods", "nodes"))
TO_ADMIN = {"to-admin": "true"}
SELECTED: dict[str, Any] = {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": TO_ADMIN}]}}


@pytest.mark.parametrize(
    ("own", "others", "wanted"),
    [
        pytest.param([], [role("z", [A], TO_ADMIN), role("y", [B], TO_ADMIN)], [B, A], id="in the order of names"),
        pytest.param([], [role("z", [A], TO_ADMIN), role("y", [A, B], TO_ADMIN)], [A, B], id="each rule once"),
        pytest.param([A], [role("z", [A], TO_ADMIN)], None, id="nothing changed"),
        pytest.param([A], [role("z", [A])], [], id="a label is gone"),
        pytest.param([A], [role("admin", [A], TO_ADMIN)], [], id="not its own"),
    ],
)
def test_an_aggregated_role_has_the_rules_of_the_selected_ones(
    own: list[Any], others: list[KubeObject], wanted: list[Any] | None
) -> None:
    actions = plan(role("admin", own, **SELECTED), others)
    patch = {"metadata": {"resourceVersion": "7"}, "rules": wanted}
    assert actions == (() if wanted is None else (Patch(CLUSTERROLES, "", "admin", patch),))


def test_a_role_without_an_aggregation_rule_is_left_alone() -> None:
    assert plan(role("r", [A]), [role("z", [B], TO_ADMIN)]) == ()
