"""The checks of the Pod Security Standards, text for text, and which releases have them."""

from __future__ import annotations

from typing import Any

import pytest

from kubewire.components.apiserver.registry.admission.podsecurity.policy import Level, Policy, label_errors


def spec(*contexts: Any, **fields: Any) -> Any:
    made = [{"name": "ab"[number], "securityContext": context} for number, context in enumerate(contexts)]
    return {"containers": made, **fields}


def found(level: str, pod_spec: Any, minor: int | None = None, annotations: Any = None) -> list[str]:
    findings = Level(level, minor).findings({"annotations": annotations}, pod_spec)
    return [finding.text() for finding in findings]


SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.parametrize(
    ("pod_spec", "want"),
    [
        pytest.param(
            spec({"appArmorProfile": {"type": "Unconfined"}}),
            'forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")',
            id="AppArmor switched off",
        ),
        pytest.param(
            spec({"capabilities": {"add": ["SYS_TIME", "NET_ADMIN", "CHOWN"]}}),
            'non-default capabilities (container "a" must not include "NET_ADMIN", "SYS_TIME" in '
            "securityContext.capabilities.add)",
            id="capabilities",
        ),
        pytest.param(
            spec({}, hostNetwork=True, hostIPC=True),
            "host namespaces (hostNetwork=true, hostIPC=true)",
            id="namespaces of the host",
        ),
        pytest.param(
            spec({}, volumes=[{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}]),
            'hostPath volumes (volumes "v", "w")',
            id="directories of the host",
        ),
        pytest.param(
            {"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]},
            'hostPorts (container "a" uses hostPorts 443, 80)',
            id="ports of the host",
        ),
        pytest.param(
            {"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]},
            'probe or lifecycle host (container "a" uses probe or lifecycle host "h")',
            id="a probe that leads elsewhere",
        ),
        pytest.param(
            spec({"privileged": True}, {"privileged": True}),
            'privileged (containers "a", "b" must not set securityContext.privileged=true)',
            id="privileged",
        ),
        pytest.param(
            spec({"procMount": "Unmasked"}),
            'procMount (container "a" must not set securityContext.procMount to "Unmasked")',
            id="an open /proc",
        ),
        pytest.param(
            spec({"seLinuxOptions": {"type": "x", "user": "u"}}, securityContext={"seLinuxOptions": {"role": "r"}}),
            'seLinuxOptions (pod and container "a" set forbidden securityContext.seLinuxOptions: type "x"; user may '
            "not be set; role may not be set)",
            id="SELinux",
        ),
        pytest.param(
            spec({}, securityContext={"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
            id="seccomp switched off",
        ),
        pytest.param(
            spec({}, securityContext={"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}),
            "forbidden sysctls (kernel.msgmax)",
            id="sysctls",
        ),
        pytest.param(
            spec({"windowsOptions": {"hostProcess": True}}),
            'hostProcess (container "a" must not set securityContext.windowsOptions.hostProcess=true)',
            id="host processes of Windows",
        ),
    ],
)
def test_baseline(pod_spec: Any, want: str) -> None:
    assert found("baseline", pod_spec) == [want]
    assert found("privileged", pod_spec) == []


def test_annotations_of_apparmor() -> None:
    key = "container.apparmor.security.beta.kubernetes.io/a"
    text = f'annotation must not set AppArmor profile type to "{key}="unconfined""'
    assert found("baseline", spec({}), annotations={key: "unconfined"}) == [f"forbidden AppArmor profile ({text})"]
    assert found("baseline", spec({}), annotations={key: "runtime/default"}) == []


@pytest.mark.parametrize(
    ("pod_spec", "want"),
    [
        pytest.param(
            spec({}),
            [
                'allowPrivilegeEscalation != false (container "a" must set '
                "securityContext.allowPrivilegeEscalation=false)",
                'unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"])',
                'runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)',
                'seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to '
                '"RuntimeDefault" or "Localhost")',
            ],
            id="a pod that says nothing",
        ),
        pytest.param(spec(SAFE), [], id="a pod that needs nothing"),
        pytest.param(
            spec(
                {key: SAFE[key] for key in ("allowPrivilegeEscalation", "capabilities")},
                securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "Localhost"}},
            ),
            [],
            id="the pod speaks for its containers",
        ),
        pytest.param(
            spec({**SAFE, "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}}),
            ['unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add)'],
            id="one capability may be added",
        ),
        pytest.param(
            spec({**SAFE, "runAsNonRoot": False, "runAsUser": 0}),
            [
                'runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)',
                'runAsUser=0 (container "a" must not set runAsUser=0)',
            ],
            id="root",
        ),
        pytest.param(
            spec({**SAFE, "runAsNonRoot": False, "runAsUser": 0}, hostUsers=False),
            [],
            id="root in a user namespace",
        ),
        pytest.param(
            spec(
                SAFE, volumes=[{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}, {"name": "x", "emptyDir": {}}]
            ),
            ['restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")'],
            id="volumes; hostPath is not told twice",
        ),
    ],
)
def test_restricted(pod_spec: Any, want: list[str]) -> None:
    assert found("restricted", pod_spec) == want


@pytest.mark.parametrize(
    ("minor", "reasons"),
    [
        (18, ["allowPrivilegeEscalation != false", "runAsNonRoot != true"]),
        (19, ["allowPrivilegeEscalation != false", "runAsNonRoot != true", "seccompProfile"]),
        (
            22,
            [
                "allowPrivilegeEscalation != false",
                "unrestricted capabilities",
                "runAsNonRoot != true",
                "seccompProfile",
            ],
        ),
        (0, ["runAsNonRoot != true"]),
    ],
)
def test_a_version_has_the_checks_of_its_release(minor: int, reasons: list[str]) -> None:
    assert [text.partition(" (")[0] for text in found("restricted", spec({}), minor)] == reasons


def test_labels() -> None:
    prefix = "pod-security.kubernetes.io"
    labels = {f"{prefix}/enforce": "baseline", f"{prefix}/enforce-version": "v1.24", f"{prefix}/warn": "restricted"}
    policy = Policy.of({"metadata": {"labels": labels}})
    assert [str(level) for level in (policy.enforce, policy.audit, policy.warn)] == [
        "baseline:v1.24",
        "privileged:latest",
        "restricted:latest",
    ]
    wrong = label_errors({f"{prefix}/audit": "strict", f"{prefix}/audit-version": "1.2"})
    assert [error.message() for error in wrong] == [
        f'metadata.labels[{prefix}/audit]: Invalid value: "strict": must be one of privileged, baseline, restricted',
        f'metadata.labels[{prefix}/audit-version]: Invalid value: "1.2": must be "latest" or "v1.x"',
    ]
