"""The ClusterRoles of controllers, each bound to a ServiceAccount of its name in kube-system
(controller_policy.go of v1.36).

kube-controller-manager --use-service-account-credentials uses these accounts, so that a controller
may do only what it needs.
"""

from __future__ import annotations

from kubewire.components.apiserver.access.policy import CORE, READ, RoleSpec, events, rule
from kubewire.components.apiserver.kinds.rules import Rule

PREFIX = "system:controller:"
_WORKLOADS = "apps extensions"
_CERTIFICATES = "certificates.k8s.io"
_RESOURCE = "resource.k8s.io"
_STORAGE = "storage.k8s.io"


def controller_roles() -> dict[str, RoleSpec]:
    """The rules by the name of the account; the ClusterRole's name has PREFIX in front."""
    tables = _workloads() | _network() | _volumes() | _cluster()
    return {name: RoleSpec(rules) for name, rules in tables.items()}


def _workloads() -> dict[str, tuple[Rule, ...]]:
    pods = rule("create delete list patch watch", CORE, "pods")
    revisions = rule("create delete get list patch update watch", "apps", "controllerrevisions")
    return {
        "cronjob-controller": (
            rule("get list update watch", "batch", "cronjobs"),
            rule("create delete get list patch update watch", "batch", "jobs"),
            rule("update", "batch", "cronjobs/status"),
            rule("update", "batch", "cronjobs/finalizers"),
            rule("delete list", CORE, "pods"),
            events(),
        ),
        "daemon-set-controller": (
            rule(READ, _WORKLOADS, "daemonsets"),
            rule("update", _WORKLOADS, "daemonsets/status"),
            rule("update", _WORKLOADS, "daemonsets/finalizers"),
            rule("list watch", CORE, "nodes"),
            pods,
            rule("create", CORE, "pods/binding"),
            revisions,
            events(),
        ),
        "deployment-controller": (
            rule("get list update watch", _WORKLOADS, "deployments"),
            rule("update", _WORKLOADS, "deployments/status"),
            rule("update", _WORKLOADS, "deployments/finalizers"),
            rule("create delete get list patch update watch", _WORKLOADS, "replicasets"),
            rule("get list update watch", CORE, "pods"),
            events(),
        ),
        "disruption-controller": (
            rule(READ, _WORKLOADS, "deployments"),
            rule(READ, _WORKLOADS, "replicasets"),
            rule(READ, CORE, "replicationcontrollers"),
            rule(READ, "policy", "poddisruptionbudgets"),
            rule(READ, "apps", "statefulsets"),
            rule("update", "policy", "poddisruptionbudgets/status"),
            rule("patch update", CORE, "pods/status"),
            rule("get", "*", "*/scale"),
            events(),
        ),
        "horizontal-pod-autoscaler": (
            rule(READ, "autoscaling", "horizontalpodautoscalers"),
            rule("update", "autoscaling", "horizontalpodautoscalers/status"),
            rule("get update", "*", "*/scale"),
            rule("list", CORE, "pods"),
            rule("list", "metrics.k8s.io", "pods"),
            rule("get list", "custom.metrics.k8s.io", "*"),
            rule("get list", "external.metrics.k8s.io", "*"),
            events(),
        ),
        "job-controller": (
            rule("get list patch update watch", "batch", "jobs"),
            rule("update", "batch", "jobs/status"),
            rule("update", "batch", "jobs/finalizers"),
            pods,
            events(),
        ),
        "pod-garbage-collector": (
            rule("delete list watch", CORE, "pods"),
            rule("get list", CORE, "nodes"),
            rule("patch", CORE, "pods/status"),
        ),
        "replicaset-controller": (
            rule("get list update watch", _WORKLOADS, "replicasets"),
            rule("update", _WORKLOADS, "replicasets/status"),
            rule("update", _WORKLOADS, "replicasets/finalizers"),
            pods,
            events(),
        ),
        "replication-controller": (
            rule("get list update watch", CORE, "replicationcontrollers"),
            rule("update", CORE, "replicationcontrollers/status"),
            rule("update", CORE, "replicationcontrollers/finalizers"),
            pods,
            events(),
        ),
        "statefulset-controller": (
            rule("list watch", CORE, "pods"),
            rule(READ, "apps", "statefulsets"),
            rule("update", "apps", "statefulsets/status"),
            rule("update", "apps", "statefulsets/finalizers"),
            rule("create delete get patch update", CORE, "pods"),
            revisions,
            rule("create get", CORE, "persistentvolumeclaims"),
            rule("delete update", CORE, "persistentvolumeclaims"),
            events(),
        ),
        "ttl-after-finished-controller": (
            rule("delete get list watch", "batch", "jobs"),
            events(),
        ),
    }


def _network() -> dict[str, tuple[Rule, ...]]:
    slices = rule("create delete get list update", "discovery.k8s.io", "endpointslices")
    return {
        "endpoint-controller": (
            rule(READ, CORE, "pods services"),
            rule("create delete get list update", CORE, "endpoints"),
            rule("create", CORE, "endpoints/restricted"),
            events(),
        ),
        "endpointslice-controller": (
            rule(READ, CORE, "nodes pods services"),
            rule("update", CORE, "services/finalizers"),
            slices,
            events(),
        ),
        "endpointslicemirroring-controller": (
            rule(READ, CORE, "endpoints services"),
            rule("update", CORE, "services/finalizers"),
            rule("update", CORE, "endpoints/finalizers"),
            slices,
            events(),
        ),
        "route-controller": (
            rule("list watch", CORE, "nodes"),
            rule("patch", CORE, "nodes/status"),
            events(),
        ),
        "service-cidrs-controller": (
            rule("get list patch update watch", "networking.k8s.io", "servicecidrs"),
            rule("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
            rule("patch update", "networking.k8s.io", "servicecidrs/status"),
            rule(READ, "networking.k8s.io", "ipaddresses"),
            events(),
        ),
        "service-controller": (
            rule(READ, CORE, "services"),
            rule("patch update", CORE, "services/status"),
            rule("list watch", CORE, "nodes"),
            events(),
        ),
    }


def _volumes() -> dict[str, tuple[Rule, ...]]:
    return {
        "attachdetach-controller": (
            rule("list watch", CORE, "persistentvolumeclaims persistentvolumes"),
            rule(READ, CORE, "nodes"),
            rule("patch update", CORE, "nodes/status"),
            rule("list watch", CORE, "pods"),
            events(),
            rule("create delete get list watch", _STORAGE, "volumeattachments"),
            rule(READ, _STORAGE, "csidrivers"),
            rule(READ, _STORAGE, "csinodes"),
        ),
        "ephemeral-volume-controller": (
            rule(READ, CORE, "pods"),
            rule("update", CORE, "pods/finalizers"),
            rule("create get list watch", CORE, "persistentvolumeclaims"),
            events(),
        ),
        "expand-controller": (
            rule("get list patch update watch", CORE, "persistentvolumes"),
            rule("patch update", CORE, "persistentvolumeclaims/status"),
            rule(READ, CORE, "persistentvolumeclaims"),
            rule(READ, _STORAGE, "storageclasses"),
            rule("get", CORE, "endpoints services"),
            rule("get", CORE, "secrets"),
            events(),
        ),
        "persistent-volume-binder": (
            rule("create delete get list update watch", CORE, "persistentvolumes"),
            rule("update", CORE, "persistentvolumes/status"),
            rule("get list update watch", CORE, "persistentvolumeclaims"),
            rule("update", CORE, "persistentvolumeclaims/status"),
            rule("create delete get list watch", CORE, "pods"),
            rule(READ, _STORAGE, "storageclasses"),
            rule("create delete get update", CORE, "endpoints"),
            rule("create delete get", CORE, "services"),
            rule("get", CORE, "secrets"),
            rule("get list", CORE, "nodes"),
            rule("watch", CORE, "events"),
            events(),
        ),
        "pv-protection-controller": (
            rule("get list update watch", CORE, "persistentvolumes"),
            events(),
        ),
        "pvc-protection-controller": (
            rule("get list update watch", CORE, "persistentvolumeclaims"),
            rule(READ, CORE, "pods"),
            events(),
        ),
        "selinux-warning-controller": (
            rule(READ, CORE, "pods"),
            rule(READ, CORE, "persistentvolumeclaims persistentvolumes"),
            rule(READ, _STORAGE, "csidrivers"),
            events(),
        ),
        "volumeattributesclass-protection-controller": (
            rule(READ, CORE, "persistentvolumeclaims"),
            rule(READ, CORE, "persistentvolumes"),
            rule("get list update watch", _STORAGE, "volumeattributesclasses"),
            events(),
        ),
    }


def _cluster() -> dict[str, tuple[Rule, ...]]:
    policies = "validatingadmissionpolicies"
    return {
        "certificate-controller": (
            rule("delete get list watch", _CERTIFICATES, "certificatesigningrequests"),
            rule(
                "update",
                _CERTIFICATES,
                "certificatesigningrequests/approval certificatesigningrequests/status",
            ),
            rule(
                "approve", _CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet"
            ),
            rule(
                "sign",
                _CERTIFICATES,
                "signers",
                "kubernetes.io/kube-apiserver-client",
                "kubernetes.io/kube-apiserver-client-kubelet",
                "kubernetes.io/kubelet-serving",
                "kubernetes.io/legacy-unknown",
            ),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            events(),
        ),
        "clusterrole-aggregation-controller": (
            rule(
                "escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles"
            ),
        ),
        "device-taint-eviction-controller": (
            rule("delete get list watch", CORE, "pods"),
            rule("patch update", CORE, "pods/status"),
            rule(READ, _RESOURCE, "resourceclaims"),
            rule(READ, _RESOURCE, "resourceslices"),
            rule(READ, _RESOURCE, "deviceclasses"),
            rule(READ, _RESOURCE, "devicetaintrules"),
            rule("patch update", _RESOURCE, "devicetaintrules/status"),
            events(),
        ),
        "generic-garbage-collector": (
            rule("delete get list patch update watch", "*", "*"),
            events(),
        ),
        "legacy-service-account-token-cleaner": (
            rule("get", CORE, "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
            rule("delete patch", CORE, "secrets"),
        ),
        "namespace-controller": (
            rule("delete get list watch", CORE, "namespaces"),
            rule("update", CORE, "namespaces/finalize namespaces/status"),
            rule("delete deletecollection get list", "*", "*"),
        ),
        "node-controller": (
            rule("delete get list patch update", CORE, "nodes"),
            rule("patch update", CORE, "nodes/status"),
            rule("patch update", CORE, "pods/status"),
            rule("delete get list", CORE, "pods"),
            events(),
        ),
        "podcertificaterequestcleaner": (
            rule("delete get list watch", _CERTIFICATES, "podcertificaterequests"),
        ),
        "resource-claim-controller": (
            rule(READ, CORE, "pods"),
            rule("update", CORE, "pods/finalizers"),
            rule("create delete get list watch", _RESOURCE, "resourceclaims"),
            rule("patch update", _RESOURCE, "resourceclaims resourceclaims/status"),
            rule("patch update", CORE, "pods/status"),
            events(),
        ),
        "resourcequota-controller": (
            rule("list watch", "*", "*"),
            rule("update", CORE, "resourcequotas/status"),
            events(),
        ),
        "root-ca-cert-publisher": (
            rule("create update", CORE, "configmaps"),
            events(),
        ),
        "service-account-controller": (
            rule("create", CORE, "serviceaccounts"),
            events(),
        ),
        "ttl-controller": (
            rule("list patch update watch", CORE, "nodes"),
            events(),
        ),
        "validatingadmissionpolicy-status-controller": (
            rule(READ, "admissionregistration.k8s.io", policies),
            rule("get patch update", "admissionregistration.k8s.io", f"{policies}/status"),
            events(),
        ),
    }
