"""Upstream's warnings, text for text."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kubewire.components.apiserver.http.warningheaders import warning_headers
from kubewire.components.apiserver.kinds.warnings.table import on_create, on_update


def given(spec: Any = None, name: str = "x", annotations: Any = None, **more: Any) -> Any:
    metadata = {"name": name, "generation": 1, **({"annotations": annotations} if annotations else {})}
    return {"metadata": metadata, **({"spec": spec} if spec is not None else {}), **more}


def env(*variables: Any) -> Any:
    return {"containers": [{"name": "c", "env": list(variables)}]}


def ports(*given_ports: Any) -> Any:
    return {"containers": [{"name": "c", "ports": [{"protocol": "TCP", **port} for port in given_ports]}]}


def mapped(*paths: str) -> Any:
    return [{"key": path, "path": path} for path in paths]


HIDES = 'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'
TERM = {"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "In", "values": ["a b"]}]}
IS_OS = 'beta.kubernetes.io/os is deprecated since v1.14; use "kubernetes.io/os" instead'
LATER = "DuringSchedulingIgnoredDuringExecution"
NO_SELECTOR = "a null labelSelector results in matching no pod"

POD_CASES = [
    pytest.param(
        {"nodeSelector": {"beta.kubernetes.io/os": "linux"}},
        ['spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'],
        id="an old label of nodes in nodeSelector",
    ),
    pytest.param(
        {
            "affinity": {
                "nodeAffinity": {
                    f"required{LATER}": {"nodeSelectorTerms": [TERM]},
                    f"preferred{LATER}": [{"weight": 1, "preference": TERM}],
                }
            }
        },
        [
            f"spec.affinity.nodeAffinity.required{LATER}.nodeSelectorTerms[0].matchExpressions[0].key: {IS_OS}",
            f"spec.affinity.nodeAffinity.preferred{LATER}[0].preference.matchExpressions[0].key: {IS_OS}",
            f"spec.affinity.nodeAffinity.preferred{LATER}[0].preference.matchExpressions[0].values[0]: a b is "
            "invalid, a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
            "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ],
        id="an old label of nodes in nodeAffinity",
    ),
    pytest.param(
        {"topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}]},
        [
            "spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated "
            'since v1.17; use "topology.kubernetes.io/zone" instead',
            f"spec.topologySpreadConstraints[0].labelSelector: {NO_SELECTOR}",
        ],
        id="a spread constraint",
    ),
    pytest.param(
        {
            "affinity": {
                "podAffinity": {f"required{LATER}": [{"topologyKey": "k"}]},
                "podAntiAffinity": {f"preferred{LATER}": [{"podAffinityTerm": {"topologyKey": "k"}}]},
            }
        },
        [
            f"spec.affinity.podAffinity.required{LATER}[0].labelSelector: {NO_SELECTOR}",
            f"spec.affinity.podAntiAffinity.preferred{LATER}[0].podAffinityTerm.labelSelector: {NO_SELECTOR}",
        ],
        id="pod affinity without a selector",
    ),
    pytest.param(
        {"volumes": [{"name": "a", "gitRepo": {}}, {"name": "b", "storageos": {}}]},
        [
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.volumes[1].storageOS: deprecated in v1.22, non-functional in v1.25+",
        ],
        id="removed volume plugins",
    ),
    pytest.param(
        {"volumes": [{"name": "v", "configMap": {"name": "m", "items": mapped("a", "a/b", "c")}}]},
        ['volume "v" (ConfigMap "m"): overlapping paths: "a/b" with "a"'],
        id="a file in another file",
    ),
    pytest.param(
        {
            "volumes": [
                {
                    "name": "v",
                    "projected": {
                        "sources": [
                            {"serviceAccountToken": {"path": "token"}},
                            {"secret": {"name": "s", "items": mapped("token")}},
                            {},
                        ]
                    },
                }
            ]
        },
        ['volume "v" (Projected) has no sources provided'],
        id="a projected volume without a source",
    ),
    pytest.param(
        {
            "volumes": [
                {
                    "name": "v",
                    "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1m"}}}}},
                }
            ]
        },
        [
            "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value "
            '"1m" is invalid, must be an integer'
        ],
        id="a fraction of a byte of storage",
    ),
    pytest.param(
        {"hostAliases": [{"ip": "::1"}, {"ip": "::1"}], "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}]},
        [
            'spec.hostAliases[1].ip: duplicate ip "::1"',
            'spec.imagePullSecrets[1].name: duplicate name "s"',
            'spec.imagePullSecrets[2].name: invalid empty name ""',
        ],
        id="items that are there twice",
    ),
    pytest.param(
        {"dnsConfig": {"nameservers": ["2001:DB8::1"]}},
        [
            'spec.dnsConfig.nameservers[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format '
            '("2001:db8::1")'
        ],
        id="an address in another spelling",
    ),
    pytest.param(
        {"containers": [{"name": "c", "resources": {"limits": {"memory": "128m"}, "requests": {"memory": "1Ki"}}}]},
        ['spec.containers[0].resources.limits[memory]: fractional byte value "128m" is invalid, must be an integer'],
        id="milli instead of mega",
    ),
    pytest.param(
        env({"name": "A", "value": "1"}, {"name": "A", "value": "2"}), [HIDES], id="a variable that hides one"
    ),
    pytest.param(
        env({"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}), [], id="a variable that extends one"
    ),
    pytest.param(
        env({"name": "A", "value": "1"}, {"name": "A", "value": "$(A)"}), [HIDES], id="a variable that only repeats one"
    ),
    pytest.param(
        env({"name": "A", "value": "1"}, {"name": "A", "valueFrom": {"fieldRef": {}}}),
        [HIDES],
        id="a variable that is hidden by a reference",
    ),
    pytest.param(
        ports({"containerPort": 80}, {"containerPort": 80, "name": "again"}),
        ["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
        id="a port that is there twice",
    ),
    pytest.param(
        ports({"containerPort": 80}, {"containerPort": 80, "hostPort": 80}),
        ["spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]"],
        id="a port with and without a host port",
    ),
    pytest.param(
        ports({"containerPort": 80, "hostPort": 80}, {"containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.1"}),
        ["spec.containers[0].ports[1]: dangerously ambiguous port definition with spec.containers[0].ports[0]"],
        id="a host port with and without an address",
    ),
    pytest.param(
        ports({"containerPort": 80, "hostIP": "10.0.0.1"}),
        [
            "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 "
            "Protocol:TCP HostIP:10.0.0.1}"
        ],
        id="an address of the host without a port",
    ),
    pytest.param(
        {"terminationGracePeriodSeconds": -1},
        ["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"],
        id="a negative grace period",
    ),
]


@pytest.mark.parametrize(("spec", "want"), POD_CASES)
def test_pods_and_their_templates(spec: Any, want: list[str]) -> None:
    assert list(on_create("pods", given(spec))) == want
    template = {"template": {"metadata": {}, "spec": spec}}
    in_template = [re.sub(r"(?<![.\w])spec\.", "spec.template.spec.", text) for text in want]
    assert list(on_create("daemonsets.apps", given(template))) == in_template


def test_projected_sources_may_overlap_each_other() -> None:
    token = {"serviceAccountToken": {"path": "token"}}
    secret = {"secret": {"name": "s", "items": mapped("token/x")}}
    pod = given({"volumes": [{"name": "v", "projected": {"sources": [token, secret]}}]})
    assert on_create("pods", pod) == ('volume "v" (Projected Secret "s"): overlapping paths: "token/x" with "token"',)


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        pytest.param(("token", "ca.crt", "namespace"), False, id="different files"),
        pytest.param(("a", "a-b", "a/b"), True, id="one between the two in order"),
        pytest.param(("b", "c", "b/"), True, id="the same with a slash at the end"),
        pytest.param(("", "a"), False, id="an empty path hides nothing"),
    ],
)
def test_files_of_a_projected_volume(paths: tuple[str, ...], found: bool) -> None:
    sources = [{"secret": {"name": "s", "items": mapped(path)}} for path in paths]
    pod = given({"volumes": [{"name": "v", "projected": {"sources": sources}}]})
    assert bool(on_create("pods", pod)) == found


def test_a_projected_source_that_is_empty() -> None:
    pod = given({"volumes": [{"name": "v", "projected": {"sources": [{}]}}]})
    assert on_create("pods", pod) == ('volume "v" (Projected) has no sources provided',)


def test_annotations_that_are_fields_now() -> None:
    annotations = {
        "scheduler.alpha.kubernetes.io/critical-pod": "",
        "seccomp.security.alpha.kubernetes.io/pod": "x",
        "container.apparmor.security.beta.kubernetes.io/c": "x",
    }
    pod = given({"containers": [{"name": "c"}]}, annotations=annotations)
    assert on_create("pods", pod) == (
        "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "
        '"priorityClassName" field instead',
        "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the "
        '"seccompProfile" field instead',
        "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the "
        '"appArmorProfile" field instead',
    )
    profile = {"type": "RuntimeDefault"}
    pod["spec"]["securityContext"] = {"seccompProfile": profile, "appArmorProfile": profile}
    assert len(on_create("pods", pod)) == 1, "the fields count"


@pytest.mark.parametrize(
    ("resource", "subject"),
    [
        ("pods", "the Pod's hostname"),
        ("deployments.apps", "Pod names and hostnames"),
        ("replicasets.apps", "Pod names and hostnames"),
        ("replicationcontrollers", "Pod names and hostnames"),
        ("jobs.batch", "Pod names and hostnames"),
        ("cronjobs.batch", "Pod names and hostnames"),
    ],
)
def test_names_that_are_no_hostnames(resource: str, subject: str) -> None:
    text = f"metadata.name: this is used in {subject}, which can result in surprising behavior"
    assert on_create(resource, given({}, name="a.b")) == (
        f"{text}; a DNS label is recommended: [must not contain dots]",
    )


def test_an_update_warns_of_the_template_only_when_the_spec_has_changed() -> None:
    new = given({"template": {"spec": {"terminationGracePeriodSeconds": -1}}})
    assert on_update("deployments.apps", new, new) == ()
    old = given({})
    old["metadata"]["generation"] = 0
    assert len(on_update("deployments.apps", new, old)) == 1


def test_pods_are_not_looked_at_again() -> None:
    pod = given({"terminationGracePeriodSeconds": -1})
    assert on_update("pods", pod, pod) == ()


def service(**spec: Any) -> Any:
    return given({"type": "ClusterIP", "clusterIP": "10.0.0.1", "sessionAffinity": "None", **spec})


CASES = [
    pytest.param(
        "statefulsets.apps",
        given({"revisionHistoryLimit": -1}),
        ["spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"],
        id="StatefulSet that keeps all revisions",
    ),
    pytest.param(
        "jobs.batch",
        given({"completionMode": "Indexed", "completions": 100_001, "parallelism": 10_001}),
        [
            "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
            "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ],
        id="Job with many indexes",
    ),
    pytest.param(
        "cronjobs.batch",
        given({"schedule": "CRON_TZ=UTC 0 0 * * *"}),
        [
            "CRON_TZ or TZ used in spec.spec.schedule is not officially supported, see "
            "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        ],
        id="CronJob with a time zone in its schedule",
    ),
    pytest.param(
        "services",
        service(externalIPs=["2001:DB8::1"], trafficDistribution="PreferClose", externalName="x"),
        [
            'spec.externalIPs[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")',
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            'spec.externalName is ignored when spec.type is not "ExternalName"',
            'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"',
        ],
        id="Service with deprecated and unused fields",
    ),
    pytest.param(
        "services",
        service(clusterIP="None", externalIPs=["1.2.3.4"], loadBalancerIP="1.2.3.4", sessionAffinity="ClientIP"),
        [
            "spec.loadBalancerIP is ignored for headless services",
            "spec.externalIPs is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services",
        ],
        id="headless Service with fields that need an address",
    ),
    pytest.param(
        "services",
        given({"type": "ExternalName"}, annotations={"service.kubernetes.io/topology-aware-hints": "auto"}),
        [
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use "
            "service.kubernetes.io/topology-mode instead"
        ],
        id="Service with the old annotation for hints",
    ),
    pytest.param(
        "services",
        service(loadBalancerSourceRanges=["010.0.0.0/8", "10.1.0.0/8", "2001:DB8::/32", "::ffff:10.0.0.0/104"]),
        [
            'spec.loadBalancerSourceRanges[0]: non-standard CIDR value "010.0.0.0/8" is invalid: use "10.0.0.0/8"',
            'spec.loadBalancerSourceRanges[1]: CIDR value "10.1.0.0/8" is ambiguous in this context (should be '
            '"10.0.0.0/8" or "10.1.0.0/32"?)',
            'spec.loadBalancerSourceRanges[2]: IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical '
            'format ("2001:db8::/32")',
            'spec.loadBalancerSourceRanges[3]: non-standard CIDR value "::ffff:10.0.0.0/104" is invalid: use '
            '"10.0.0.0/8"',
        ],
        id="ranges in other spellings",
    ),
    pytest.param(
        "endpoints",
        given(subsets=[{"addresses": [{"ip": "010.1.1.1"}], "notReadyAddresses": [{"ip": "::ffff:1.2.3.4"}]}]),
        [
            'subsets[0].addresses[0].ip: non-standard IP address "010.1.1.1" is invalid: use "10.1.1.1"',
            'subsets[0].notReadyAddresses[0].ip: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4"',
        ],
        id="Endpoints with addresses that programs read differently",
    ),
    pytest.param(
        "endpointslices.discovery.k8s.io",
        given(addressType="FQDN", endpoints=[{"addresses": ["a.b"]}]),
        ["spec.addressType: FQDN endpoints are deprecated"],
        id="EndpointSlice of names",
    ),
    pytest.param(
        "endpointslices.discovery.k8s.io",
        given(addressType="IPv6", endpoints=[{"addresses": ["::A"]}]),
        ['endpoints[0].addresses[0]: IPv6 address "::A" should be in RFC 5952 canonical format ("::a")'],
        id="EndpointSlice with another spelling",
    ),
    pytest.param(
        "ingresses.networking.k8s.io",
        given({}, annotations={"kubernetes.io/ingress.class": "nginx"}),
        ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"],
        id="Ingress with the old annotation",
    ),
    pytest.param(
        "networkpolicies.networking.k8s.io",
        given({"egress": [{"to": [{"ipBlock": {"cidr": "A::/16", "except": ["A:1::/32"]}}]}]}),
        [
            'spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value "A::/16" should be in RFC 5952 canonical format '
            '("a::/16")',
            'spec.egress[0].to[0].ipBlock.except[0]: IPv6 CIDR value "A:1::/32" should be in RFC 5952 canonical '
            'format ("a:1::/32")',
        ],
        id="NetworkPolicy with other spellings",
    ),
    pytest.param(
        "persistentvolumes",
        given(
            {"persistentVolumeReclaimPolicy": "Recycle", "cephfs": {}},
            annotations={"volume.beta.kubernetes.io/mount-options": "", "volume.beta.kubernetes.io/storage-class": ""},
        ),
        [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "
            '"storageClassName" attribute instead',
            "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since v1.31; use "
            '"mountOptions" attribute instead',
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended "
            "approach is to use dynamic provisioning.",
            "spec.cephfs: deprecated in v1.28, non-functional in v1.31+",
        ],
        id="PersistentVolume of old times",
    ),
    pytest.param(
        "persistentvolumeclaims",
        given(
            {"resources": {"limits": {"storage": "1500m"}}},
            annotations={"volume.beta.kubernetes.io/storage-class": "x"},
        ),
        [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use "
            '"storageClassName" attribute instead',
            'spec.resources.limits[storage]: fractional byte value "1500m" is invalid, must be an integer',
        ],
        id="PersistentVolumeClaim",
    ),
    pytest.param(
        "storageclasses.storage.k8s.io",
        given(allowedTopologies=[{"matchLabelExpressions": [{"key": "beta.kubernetes.io/arch"}]}]),
        ['allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.14; use "kubernetes.io/arch" instead'],
        id="StorageClass with an old label of nodes",
    ),
    pytest.param(
        "serviceaccounts",
        given(annotations={"kubernetes.io/enforce-mountable-secrets": "true"}),
        [
            "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate "
            "namespaces to isolate access to mounted secrets"
        ],
        id="ServiceAccount that bounds its secrets",
    ),
    pytest.param(
        "runtimeclasses.node.k8s.io",
        given(scheduling={"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
        ['scheduling.nodeSelector: deprecated since v1.14; use "kubernetes.io/os" instead'],
        id="RuntimeClass with an old label of nodes",
    ),
    pytest.param(
        "csistoragecapacities.storage.k8s.io",
        given(nodeTopology={"matchLabels": {"beta.kubernetes.io/os": "linux"}}),
        ['nodeTopology.matchLabels.beta.kubernetes.io/os: deprecated since v1.14; use "kubernetes.io/os" instead'],
        id="CSIStorageCapacity with an old label of nodes",
    ),
    pytest.param(
        "nodes",
        given({"externalID": "x", "configSource": {}}),
        [
            "spec.configSource: the feature is removed",
            "spec.externalID: this field is deprecated, and is unused by Kubernetes",
        ],
        id="Node with removed fields",
    ),
]


@pytest.mark.parametrize(("resource", "obj", "want"), CASES)
def test_other_kinds(resource: str, obj: Any, want: list[str]) -> None:
    assert list(on_create(resource, obj)) == want


def definition(*schemas: Any) -> Any:
    properties = {str(number): schema for number, schema in enumerate(schemas)}
    return given({"versions": [{"schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}]})


def test_formats_that_nothing_checks() -> None:
    resource = "customresourcedefinitions.apiextensions.k8s.io"
    known = [{"type": "string", "format": "date-time"}, {"type": "integer", "format": "int32"}]
    unknown = {"type": "array", "items": {"type": "integer", "format": "int16"}}
    assert on_create(resource, definition(*known, unknown)) == ('unrecognized format "int16"',)
    assert on_update(resource, definition(unknown), definition(unknown)) == ()


def _pair() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    signed = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return signed, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


PAIR, OTHER = _pair(), _pair()


@pytest.mark.parametrize(
    ("certificate", "key", "want"),
    [
        pytest.param(*PAIR, "", id="they belong together"),
        pytest.param(PAIR[0], OTHER[1], "tls: private key does not match public key", id="another key"),
        pytest.param(b"x", PAIR[1], "tls: failed to find any PEM data in certificate input", id="no certificate"),
        pytest.param(PAIR[0], b"", "tls: failed to find any PEM data in key input", id="no key"),
        pytest.param(
            PAIR[1],
            PAIR[0],
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs "
            "may have been switched",
            id="switched",
        ),
        pytest.param(
            PAIR[0],
            PAIR[0],
            "tls: found a certificate rather than a key in the PEM for the private key",
            id="two certificates",
        ),
    ],
)
def test_a_secret_whose_certificate_and_key_do_not_match(certificate: bytes, key: bytes, want: str) -> None:
    data = {"tls.crt": base64.b64encode(certificate).decode(), "tls.key": base64.b64encode(key).decode()}
    assert "".join(on_create("secrets", given(type="kubernetes.io/tls", data=data))) == want


def test_headers_are_quoted_once_each_and_cut_when_they_are_many() -> None:
    assert warning_headers(['a "b"', 'a "b"', "", "two\nlines"]) == ['299 - "a \\"b\\""']
    many = warning_headers([f"{number:04}" + "x" * 400 for number in range(20)])
    assert {len(header) for header in many} == {256 + len('299 - ""')}
    assert len(many) == 16, "4096 characters in all"
