"""The ClusterRoles and bindings that every cluster has (plugin/pkg/auth/authorizer/rbac/
bootstrappolicy of v1.36).

A rule is written as verbs, group and resources with a space between the words of each, because a
table of forty roles must be readable. The roles of controllers are in controllerroles.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubewire.components.apiserver.kinds.rules import EVERYTHING, Rule

READ = "get list watch"
WRITE = "create delete deletecollection patch update"
CORE = "-"
_EVENTS = "events.k8s.io"


@dataclass(frozen=True)
class RoleSpec:
    """A ClusterRole. aggregates: the label that the roles have whose rules it collects."""

    rules: tuple[Rule, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    aggregates: str = ""


@dataclass(frozen=True)
class BindingSpec:
    """Whom a ClusterRole is bound to. accounts: ServiceAccounts of kube-system."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


def rule(verbs: str, groups: str, resources: str, *names: str) -> Rule:
    """A rule for resources; CORE among the groups is the core group."""
    written = tuple("" if group == CORE else group for group in groups.split())
    return Rule(tuple(verbs.split()), written, tuple(resources.split()), names)


def urls(verbs: str, *paths: str) -> Rule:
    return Rule(tuple(verbs.split()), urls=paths)


def events() -> Rule:
    return rule("create patch update", f"{CORE} {_EVENTS}", "events")


def node_rules() -> tuple[Rule, ...]:
    """ClusterRole system:node, which the Node authorizer applies to resources that it does not
    look into."""
    return (
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        rule(READ, CORE, "services"),
        rule("create get list watch", CORE, "nodes"),
        rule("patch update", CORE, "nodes/status"),
        rule("patch update", CORE, "nodes"),
        events(),
        rule(READ, CORE, "pods"),
        rule("create delete", CORE, "pods"),
        rule("patch update", CORE, "pods/status"),
        rule("create", CORE, "pods/eviction"),
        rule(READ, CORE, "configmaps secrets"),
        rule("get", CORE, "persistentvolumeclaims persistentvolumes"),
        rule("get", CORE, "endpoints"),
        rule("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
        rule("create delete get patch update", "coordination.k8s.io", "leases"),
        rule("get", "storage.k8s.io", "volumeattachments"),
        rule("create", CORE, "serviceaccounts/token"),
        rule("get patch update", CORE, "persistentvolumeclaims/status"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule("create delete get patch update", "storage.k8s.io", "csinodes"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule("get", "resource.k8s.io", "resourceclaims"),
        rule("deletecollection", "resource.k8s.io", "resourceslices"),
        rule("get", CORE, "serviceaccounts"),
    )


_EDITED = (
    rule(
        READ,
        CORE,
        "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
    ),
    rule("impersonate", CORE, "serviceaccounts"),
    rule(WRITE, CORE, "pods pods/attach pods/exec pods/portforward pods/proxy"),
    rule("create", CORE, "pods/eviction"),
    rule(
        WRITE,
        CORE,
        "configmaps persistentvolumeclaims replicationcontrollers "
        "replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    ),
    rule("create", CORE, "serviceaccounts/token"),
    rule(WRITE, f"{CORE} {_EVENTS}", "events"),
    rule(
        WRITE,
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets "
        "replicasets/scale statefulsets statefulsets/scale",
    ),
    rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
    rule(WRITE, "batch", "cronjobs jobs"),
    rule(
        WRITE,
        "extensions",
        "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies "
        "replicasets replicasets/scale replicationcontrollers/scale",
    ),
    rule(WRITE, "policy", "poddisruptionbudgets"),
    rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    rule(f"{WRITE} {READ}", "coordination.k8s.io", "leases"),
    rule(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
)

_VIEWED = (
    rule(
        READ,
        CORE,
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
        "replicationcontrollers replicationcontrollers/scale serviceaccounts services "
        "services/status",
    ),
    rule(
        READ,
        CORE,
        "bindings limitranges namespaces/status pods/log pods/status "
        "replicationcontrollers/status resourcequotas resourcequotas/status",
    ),
    rule(READ, CORE, "namespaces"),
    rule(READ, f"{CORE} {_EVENTS}", "events"),
    rule(READ, "discovery.k8s.io", "endpointslices"),
    rule(
        READ,
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale "
        "deployments/status replicasets replicasets/scale replicasets/status statefulsets "
        "statefulsets/scale statefulsets/status",
    ),
    rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    rule(
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses "
        "ingresses/status networkpolicies replicasets replicasets/scale replicasets/status "
        "replicationcontrollers/scale",
    ),
    rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    rule(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
)

_CONTROLLER_MANAGER = (
    events(),
    rule("create", "coordination.k8s.io", "leases"),
    rule("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
    rule("create", CORE, "secrets serviceaccounts"),
    rule("delete", CORE, "secrets"),
    rule("get", CORE, "configmaps namespaces secrets serviceaccounts"),
    rule("update", CORE, "secrets serviceaccounts"),
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    rule("list watch", "*", "*"),
    rule("create", CORE, "serviceaccounts/token"),
)

_SCHEDULER = (
    events(),
    rule("create", "coordination.k8s.io", "leases"),
    rule("get update list watch", "coordination.k8s.io", "leases", "kube-scheduler"),
    rule("create", "coordination.k8s.io", "leasecandidates"),
    rule(
        "get list watch delete deletecollection patch update",
        "coordination.k8s.io",
        "leasecandidates",
    ),
    rule(READ, CORE, "nodes"),
    rule("delete get list watch", CORE, "pods"),
    rule("create", CORE, "bindings pods/binding"),
    rule("patch update", CORE, "pods/status"),
    rule(READ, CORE, "replicationcontrollers services"),
    rule(READ, "apps extensions", "replicasets"),
    rule(READ, "apps", "statefulsets"),
    rule(READ, "policy", "poddisruptionbudgets"),
    rule(READ, CORE, "persistentvolumeclaims persistentvolumes"),
    rule("create", "authentication.k8s.io", "tokenreviews"),
    rule("create", "authorization.k8s.io", "subjectaccessreviews"),
    rule(READ, "storage.k8s.io", "csinodes"),
    rule(READ, CORE, "namespaces"),
    rule(READ, "storage.k8s.io", "csidrivers"),
    rule(READ, "storage.k8s.io", "csistoragecapacities"),
    rule(READ, "storage.k8s.io", "volumeattachments"),
    rule(READ, "resource.k8s.io", "deviceclasses"),
    rule("get list patch update watch", "resource.k8s.io", "resourceclaims"),
    rule("create", "resource.k8s.io", "resourceclaims"),
    rule("get list patch update watch", "resource.k8s.io", "resourceclaims/status"),
    rule(READ, "resource.k8s.io", "resourceslices"),
    rule(READ, "resource.k8s.io", "devicetaintrules"),
)

_HEALTH = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_CERTIFICATES = "certificates.k8s.io"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
_SIGNERS = {
    "legacy-unknown": "kubernetes.io/legacy-unknown",
    "kubelet-serving": "kubernetes.io/kubelet-serving",
    "kube-apiserver-client": "kubernetes.io/kube-apiserver-client",
    "kube-apiserver-client-kubelet": "kubernetes.io/kube-apiserver-client-kubelet",
}


def cluster_roles() -> dict[str, RoleSpec]:
    """The ClusterRoles by name, without those of controllers."""
    plain: dict[str, tuple[Rule, ...]] = {
        "cluster-admin": EVERYTHING,
        "system:discovery": (
            urls("get", *_HEALTH, "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"),
        ),
        "system:monitoring": (
            urls(
                "get",
                "/metrics",
                "/metrics/slis",
                "/livez",
                "/readyz",
                "/healthz",
                "/livez/*",
                "/readyz/*",
                "/healthz/*",
            ),
            rule("get", CORE, "nodes/metrics"),
        ),
        "system:basic-user": (
            rule(
                "create",
                "authorization.k8s.io",
                "selfsubjectaccessreviews selfsubjectrulesreviews",
            ),
            rule("create", "authentication.k8s.io", "selfsubjectreviews"),
        ),
        "system:public-info-viewer": (urls("get", *_HEALTH),),
        "system:heapster": (
            rule(READ, CORE, "events namespaces nodes pods"),
            rule(READ, "extensions", "deployments"),
        ),
        "system:node": node_rules(),
        "system:node-problem-detector": (
            rule("get", CORE, "nodes"),
            rule("patch", CORE, "nodes/status"),
            events(),
        ),
        "system:kubelet-api-admin": (
            rule(READ, CORE, "nodes"),
            rule("proxy", CORE, "nodes"),
            rule(
                "*",
                CORE,
                "nodes/log nodes/metrics nodes/proxy nodes/stats nodes/configz nodes/healthz "
                "nodes/pods",
            ),
        ),
        "system:node-bootstrapper": (
            rule("create get list watch", _CERTIFICATES, "certificatesigningrequests"),
        ),
        "system:auth-delegator": (
            rule("create", "authentication.k8s.io", "tokenreviews"),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
        ),
        "system:kube-aggregator": (rule(READ, CORE, "endpoints services"),),
        "system:kube-controller-manager": _CONTROLLER_MANAGER,
        "system:kube-dns": (rule("list watch", CORE, "endpoints services"),),
        "system:persistent-volume-provisioner": (
            rule("create delete get list watch", CORE, "persistentvolumes"),
            rule("get list update watch", CORE, "persistentvolumeclaims"),
            rule(READ, "storage.k8s.io", "storageclasses"),
            rule("watch", CORE, "events"),
            events(),
        ),
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient": (
            rule("create", _CERTIFICATES, "certificatesigningrequests/nodeclient"),
        ),
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": (
            rule("create", _CERTIFICATES, "certificatesigningrequests/selfnodeclient"),
        ),
        "system:volume-scheduler": (
            rule("get list patch update watch", CORE, "persistentvolumes"),
            rule(READ, "storage.k8s.io", "storageclasses"),
            rule("get list patch update watch", CORE, "persistentvolumeclaims"),
        ),
        "system:service-account-issuer-discovery": (
            urls(
                "get",
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ),
        ),
        "system:node-proxier": (
            rule("list watch", CORE, "endpoints services"),
            rule(READ, CORE, "nodes"),
            events(),
            rule("list watch", "discovery.k8s.io", "endpointslices"),
            rule("list watch", "networking.k8s.io", "servicecidrs"),
        ),
        "system:kube-scheduler": _SCHEDULER,
    }
    approvers = {
        f"system:certificates.k8s.io:{name}-approver": (
            rule("approve", _CERTIFICATES, "signers", signer),
        )
        for name, signer in _SIGNERS.items()
    }
    return {name: RoleSpec(rules) for name, rules in (plain | approvers).items()} | {
        "admin": RoleSpec(aggregates=f"{_AGGREGATE}admin"),
        "edit": RoleSpec(labels={f"{_AGGREGATE}admin": "true"}, aggregates=f"{_AGGREGATE}edit"),
        "view": RoleSpec(labels={f"{_AGGREGATE}edit": "true"}, aggregates=f"{_AGGREGATE}view"),
        "system:aggregate-to-admin": RoleSpec(
            (
                rule("create", "authorization.k8s.io", "localsubjectaccessreviews"),
                rule(f"{WRITE} {READ}", "rbac.authorization.k8s.io", "rolebindings roles"),
            ),
            {f"{_AGGREGATE}admin": "true"},
        ),
        "system:aggregate-to-edit": RoleSpec(_EDITED, {f"{_AGGREGATE}edit": "true"}),
        "system:aggregate-to-view": RoleSpec(_VIEWED, {f"{_AGGREGATE}view": "true"}),
    }


def cluster_role_bindings() -> dict[str, BindingSpec]:
    """The ClusterRoleBindings by name, which is that of their ClusterRole."""
    everyone = ("system:authenticated", "system:unauthenticated")
    return {
        "cluster-admin": BindingSpec(groups=("system:masters",)),
        "system:monitoring": BindingSpec(groups=("system:monitoring",)),
        "system:discovery": BindingSpec(groups=("system:authenticated",)),
        "system:basic-user": BindingSpec(groups=("system:authenticated",)),
        "system:public-info-viewer": BindingSpec(groups=everyone),
        "system:node-proxier": BindingSpec(users=("system:kube-proxy",)),
        "system:kube-controller-manager": BindingSpec(users=("system:kube-controller-manager",)),
        "system:kube-dns": BindingSpec(accounts=("kube-dns",)),
        "system:kube-scheduler": BindingSpec(users=("system:kube-scheduler",)),
        "system:volume-scheduler": BindingSpec(users=("system:kube-scheduler",)),
        "system:node": BindingSpec(),
        "system:service-account-issuer-discovery": BindingSpec(groups=("system:serviceaccounts",)),
    }
