"""One valid object of each kind, as mutations start from it: path of its collection -> the object."""

from __future__ import annotations

from typing import Any

from kubewire.components.kubeapi.resources import KubeObject

_TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"app": "a"}, "annotations": {"note": "n"}},
    "spec": {
        "initContainers": [{"name": "first", "image": "pause", "restartPolicy": "Always"}],
        "containers": [
            {
                "name": "main",
                "image": "pause",
                "command": ["sh", "-c", "true"],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
                ],
                "envFrom": [{"configMapRef": {"name": "c"}}],
                "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP", "hostPort": 8080}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                "livenessProbe": {"exec": {"command": ["true"]}},
                "startupProbe": {"grpc": {"port": 80}},
                "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
                "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}, "runAsUser": 0},
                "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x", "readOnly": True}],
            }
        ],
        "volumes": [
            {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "h", "hostPath": {"path": "/tmp", "type": "Directory"}},
            {"name": "c", "configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 256}]}},
            {"name": "p", "projected": {"sources": [{"downwardAPI": {"items": [
                {"path": "n", "fieldRef": {"fieldPath": "metadata.name"}},
                {"path": "m", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}},
            ]}}]}},
        ],
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 5}],
        "affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "k", "operator": "Gt", "values": ["1"]}]}
            ]}},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {
                "labelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
                "topologyKey": "kubernetes.io/hostname",
            }}]},
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "t", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["h"]}],
        "dnsConfig": {"nameservers": ["10.0.0.1"], "searches": ["s"], "options": [{"name": "ndots", "value": "2"}]},
        "securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}], "fsGroup": 1},
        "schedulingGates": [{"name": "g.example.com/x"}],
        "readinessGates": [{"conditionType": "example.com/x"}],
    },
}  # fmt: skip
_SELECTOR = {"matchLabels": {"app": "a"}}
_REFERENCE = {"apiVersion": "v1", "kind": "Pod", "name": "x", "namespace": "default", "uid": "u"}
_CORE, _NS = "/api/v1", "/api/v1/namespaces/default"


def _apps(plural: str) -> str:
    return f"/apis/apps/v1/namespaces/default/{plural}"


def _group(group: str, plural: str, version: str = "v1") -> str:
    return f"/apis/{group}/{version}/namespaces/default/{plural}"


def _cluster(group: str, plural: str) -> str:
    return f"/apis/{group}/v1/{plural}"


_JOB = {"template": {"spec": _TEMPLATE["spec"] | {"restartPolicy": "Never"}}, "backoffLimit": 1}

_BODIES: dict[str, KubeObject] = {
    f"{_NS}/configmaps": {"data": {"a": "1"}, "binaryData": {"b": "AA=="}, "immutable": False},
    f"{_NS}/secrets": {"data": {"a": "AA=="}, "stringData": {"b": "c"}, "type": "Opaque"},
    f"{_NS}/pods": {"metadata": _TEMPLATE["metadata"], "spec": _TEMPLATE["spec"]},
    f"{_NS}/services": {
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "a"},
            "ports": [{"name": "h", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30123}],
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
            "externalIPs": ["192.0.2.1"],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30124,
            "trafficDistribution": "PreferClose",
        }
    },
    f"{_NS}/endpoints": {"subsets": [{
        "addresses": [{"ip": "10.0.0.1", "hostname": "h", "targetRef": _REFERENCE}],
        "notReadyAddresses": [{"ip": "10.0.0.2"}],
        "ports": [{"name": "h", "port": 80, "protocol": "TCP"}],
    }]},
    f"{_NS}/serviceaccounts": {
        "secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "i"}], "automountServiceAccountToken": False,
    },
    f"{_NS}/events": {
        "involvedObject": _REFERENCE, "reason": "r", "message": "m", "type": "Normal", "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z", "source": {"component": "c"},
    },
    _group("events.k8s.io", "events"): {
        "regarding": _REFERENCE, "reason": "r", "note": "n", "type": "Normal", "action": "a",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c.d/e", "reportingInstance": "i",
        "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"},
    },
    f"{_NS}/limitranges": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "1m"}}]}},
    f"{_NS}/resourcequotas": {"spec": {"hard": {"pods": "1"}, "scopes": ["NotTerminating"]}},
    f"{_NS}/persistentvolumeclaims": {"spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v",
        "storageClassName": "s", "selector": _SELECTOR,
    }},
    f"{_NS}/podtemplates": {"template": _TEMPLATE},
    f"{_NS}/replicationcontrollers": {"spec": {"replicas": 1, "selector": {"app": "a"}, "template": _TEMPLATE}},
    f"{_CORE}/namespaces": {"spec": {"finalizers": ["kubernetes"]}},
    f"{_CORE}/nodes": {
        "spec": {
            "podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "unschedulable": True,
            "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}],
        },
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "capacity": {"cpu": "1"}},
    },
    f"{_CORE}/persistentvolumes": {"spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"},
        "persistentVolumeReclaimPolicy": "Retain", "claimRef": _REFERENCE,
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "k", "operator": "In", "values": ["v"]}
        ]}]}},
    }},
    _apps("deployments"): {"spec": {
        "replicas": 1, "selector": _SELECTOR, "template": _TEMPLATE,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        "minReadySeconds": 1, "progressDeadlineSeconds": 60,
    }},
    _apps("replicasets"): {"spec": {"replicas": 1, "selector": _SELECTOR, "template": _TEMPLATE}},
    _apps("daemonsets"): {"spec": {
        "selector": _SELECTOR, "template": _TEMPLATE,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
    }},
    _apps("statefulsets"): {"spec": {
        "replicas": 1, "selector": _SELECTOR, "template": _TEMPLATE, "serviceName": "s",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
        "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }}],
        "ordinals": {"start": 1},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
    }},
    _apps("controllerrevisions"): {"revision": 1, "data": {"a": [1]}},
    _group("autoscaling", "horizontalpodautoscalers", "v2"): {"spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}, "minReplicas": 1,
        "maxReplicas": 2,
        "metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}
        }}],
        "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}},
    }},
    _group("batch", "jobs"): {"spec": _JOB},
    _group("batch", "cronjobs"): {"spec": {
        "schedule": "*/5 * * * *", "jobTemplate": {"spec": _JOB}, "concurrencyPolicy": "Forbid",
        "timeZone": "Etc/UTC", "startingDeadlineSeconds": 100,
    }},
    _group("networking.k8s.io", "networkpolicies"): {"spec": {
        "podSelector": _SELECTOR, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
                              {"namespaceSelector": {}, "podSelector": _SELECTOR}],
                     "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}]}],
        "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}],
    }},
    _group("networking.k8s.io", "ingresses"): {"spec": {
        "ingressClassName": "c",
        "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}},
        "tls": [{"hosts": ["a.example.com"], "secretName": "s"}],
        "rules": [{"host": "*.example.com", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"name": "http"}}}},
            {"path": "/r", "pathType": "Exact", "backend": {"resource": {"apiGroup": "g", "kind": "k", "name": "n"}}},
        ]}}],
    }},
    _cluster("networking.k8s.io", "ingressclasses"): {"spec": {
        "controller": "example.com/c", "parameters": {"kind": "K", "name": "n", "scope": "Cluster"},
    }},
    _cluster("networking.k8s.io", "servicecidrs"): {"spec": {"cidrs": ["10.200.0.0/24"]}},
    _group("policy", "poddisruptionbudgets"): {"spec": {"minAvailable": "50%", "selector": _SELECTOR}},
    _group("rbac.authorization.k8s.io", "roles"): {
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["x"]}]
    },
    _cluster("rbac.authorization.k8s.io", "clusterroles"): {
        "rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}],
        "aggregationRule": {"clusterRoleSelectors": [_SELECTOR]},
    },
    _group("rbac.authorization.k8s.io", "rolebindings"): {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "default"}],
    },
    _cluster("rbac.authorization.k8s.io", "clusterrolebindings"): {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}],
    },
    _cluster("storage.k8s.io", "storageclasses"): {
        "provisioner": "p", "parameters": {"a": "b"}, "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "k", "values": ["v"]}]}],
    },
    _cluster("admissionregistration.k8s.io", "validatingwebhookconfigurations"): {"webhooks": [{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/p"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        "namespaceSelector": _SELECTOR, "objectSelector": {},
    }]},
    _cluster("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): {"webhooks": [{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://example.com"},
    }]},
    _cluster("apiextensions.k8s.io", "customresourcedefinitions"): {
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["w"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": True, "storage": True,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "required": ["spec"],
                    "properties": {
                        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {
                            "word": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 9, "minLength": 1},
                            "size": {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 1, "default": 3},
                            "list": {"type": "array", "x-kubernetes-list-type": "map", "maxItems": 5,
                                     "x-kubernetes-list-map-keys": ["name"],
                                     "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
                            "any": {"x-kubernetes-int-or-string": True, "anyOf": [{"minimum": 1}, {"minLength": 1}]},
                            "map": {"type": "object", "additionalProperties": {"type": "string", "format": "ipv4"}},
                            "one": {"type": "string", "enum": ["a", "b"], "nullable": True},
                        }},
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    },
                }},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size",
                    "labelSelectorPath": ".status.selector",
                }},
                "additionalPrinterColumns": [{"name": "W", "type": "string", "jsonPath": ".spec.word"},
                                             {"name": "D", "type": "date", "jsonPath": ".spec.list[0].name"}],
                "selectableFields": [{"jsonPath": ".spec.word"}],
            }],
        }
    },
    _cluster("scheduling.k8s.io", "priorityclasses"): {"value": 5, "preemptionPolicy": "Never", "description": "d"},
    _group("coordination.k8s.io", "leases"): {"spec": {
        "holderIdentity": "h", "leaseDurationSeconds": 1, "acquireTime": "2026-01-01T00:00:00.000000Z",
    }},
    _group("discovery.k8s.io", "endpointslices"): {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "hostname": "h", "nodeName": "n",
                       "targetRef": _REFERENCE, "zone": "z", "hints": {"forZones": [{"name": "z"}]}}],
        "ports": [{"name": "h", "port": 80, "protocol": "TCP", "appProtocol": "http"}],
    },
    "/apis/networking.k8s.io/v1/ipaddresses": {
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": "default", "name": "s"}}
    },
    # The resource of the definition above.
    "/apis/example.com/v1/namespaces/default/widgets": {
        "kind": "Widget", "apiVersion": "example.com/v1",
        "spec": {"word": "abc", "size": 2, "list": [{"name": "a"}], "any": 5, "map": {"a": "10.0.0.1"}, "one": "a"},
        "status": {"size": 1, "selector": "a=b"},
    },
}  # fmt: skip

#: Names that the kind itself prescribes, and those of two groups with one storage.
_NAMES = {
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": "widgets.example.com",
    "/apis/networking.k8s.io/v1/ipaddresses": "10.96.0.77",
    "/apis/events.k8s.io/v1/namespaces/default/events": "other",
}


def seeds() -> dict[str, KubeObject]:
    return {path: _named(path, body) for path, body in _BODIES.items()}


def _named(path: str, body: KubeObject) -> KubeObject:
    plural = path.rpartition("/")[2]
    metadata = {
        "name": _NAMES.get(path, "seed"),
        "labels": {"app": "a"},
        "annotations": {"note": "n"},
        "finalizers": ["example.com/f"] if plural == "configmaps" else [],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "u", "controller": True}],
    }
    return {"metadata": metadata | body.get("metadata", {}), **{k: v for k, v in body.items() if k != "metadata"}}
