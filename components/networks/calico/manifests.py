"""The objects of calico.yaml besides the DaemonSet: CRDs and the plugin's service account. Pure."""

from __future__ import annotations

from typing import Any

from kubewire.components.addon import account, rule

GROUP = "crd.projectcalico.org"
NAMESPACE = "kube-system"
AGENT_ACCOUNT = "calico-node"
PLUGIN_ACCOUNT = "calico-cni-plugin"

_IPAM = "blockaffinities ipamblocks ipamhandles"
_NODE_RULES = (
    rule("create", "", "serviceaccounts/token", PLUGIN_ACCOUNT),
    rule("get", "", "namespaces nodes pods"),
    rule("list watch", "discovery.k8s.io", "endpointslices"),
    rule("get list watch", "", "endpoints services"),
    rule("get", "", "configmaps"),
    rule("patch update", "", "nodes/status"),
    rule("list watch", "networking.k8s.io", "networkpolicies"),
    rule("list watch", "policy.networking.k8s.io", "adminnetworkpolicies clusternetworkpolicies"),
    rule("list watch", "", "namespaces pods serviceaccounts"),
    rule("patch", "", "pods/status"),
    rule(
        "get list watch",
        GROUP,
        "bgpconfigurations bgpfilters bgppeers blockaffinities caliconodestatuses "
        "clusterinformations felixconfigurations globalbgpconfigs globalfelixconfigs "
        "globalnetworkpolicies globalnetworksets hostendpoints ipamblocks ippools ipreservations "
        "networkpolicies networksets stagedglobalnetworkpolicies stagedkubernetesnetworkpolicies "
        "stagednetworkpolicies tiers",
    ),
    rule("create update", GROUP, "clusterinformations felixconfigurations ippools"),
    rule("get list watch update", GROUP, "caliconodestatuses"),
    rule("get list watch", "", "nodes"),
    rule("create update", GROUP, "bgpconfigurations bgppeers"),
    rule("create delete get list update", GROUP, _IPAM),
    rule("create get", GROUP, "ipamconfigs"),
    rule("watch", GROUP, "blockaffinities"),
    rule("get", "apps", "daemonsets"),
)
_PLUGIN_RULES = (
    rule("get", "", "namespaces nodes pods"),
    rule("patch", "", "pods/status"),
    rule(
        "create delete get list update",
        GROUP,
        f"{_IPAM} clusterinformations ipamconfigs ippools ipreservations",
    ),
)

_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
_BOOLEAN = {"type": "boolean"}
_MODE = {"type": "string", "enum": ["Always", "CrossSubnet", "Never"]}
_FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}

_CIDR = {"type": "object", "properties": {"cidr": _STRING}}


def _list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


#: Kind -> plural, properties of spec, required properties. All kinds are cluster-scoped.
_KINDS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "IPPool": (
        "ippools",
        {
            "cidr": _STRING,
            "blockSize": _INTEGER,
            "vxlanMode": _MODE,
            "ipipMode": _MODE,
            "natOutgoing": _BOOLEAN,
            "disabled": _BOOLEAN,
            "disableBGPExport": _BOOLEAN,
            "nodeSelector": _STRING,
            "allowedUses": _list_of(
                {"type": "string", "enum": ["Workload", "Tunnel", "LoadBalancer"]}
            ),
            "assignmentMode": {"type": "string", "enum": ["Automatic", "Manual"]},
        },
        ["cidr"],
    ),
    "IPAMBlock": (
        "ipamblocks",
        {
            "cidr": _STRING,
            "affinity": _STRING,
            "strictAffinity": _BOOLEAN,
            "allocations": _list_of({"type": "integer", "nullable": True}),
            "unallocated": _list_of(_INTEGER),
            "attributes": _list_of(_FREE),
            "deleted": _BOOLEAN,
            "sequenceNumber": _INTEGER,
        },
        ["cidr", "allocations", "unallocated", "attributes", "strictAffinity"],
    ),
    "BlockAffinity": (
        "blockaffinities",
        {"cidr": _STRING, "node": _STRING, "state": _STRING, "deleted": _STRING, "type": _STRING},
        ["cidr", "node", "state", "deleted"],
    ),
    "IPAMHandle": (
        "ipamhandles",
        {
            "handleID": _STRING,
            "block": {"type": "object", "additionalProperties": _INTEGER},
            "deleted": _BOOLEAN,
        },
        ["handleID", "block"],
    ),
    "IPAMConfig": (
        "ipamconfigs",
        {"strictAffinity": _BOOLEAN, "autoAllocateBlocks": _BOOLEAN, "maxBlocksPerHost": _INTEGER},
        ["strictAffinity", "autoAllocateBlocks"],
    ),
    "BGPPeer": (
        "bgppeers",
        {
            "node": _STRING,
            "nodeSelector": _STRING,
            "peerIP": _STRING,
            "asNumber": _INTEGER,
            "peerSelector": _STRING,
            "keepOriginalNextHop": _BOOLEAN,
            "maxRestartTime": _STRING,
            "password": _FREE,
            "sourceAddress": {"type": "string", "enum": ["UseNodeIP", "None"]},
            "filters": _list_of(_STRING),
            "numAllowedLocalASNumbers": _INTEGER,
            "reachableBy": _STRING,
            "ttlSecurity": _INTEGER,
        },
        [],
    ),
    "BGPConfiguration": (
        "bgpconfigurations",
        {
            "logSeverityScreen": _STRING,
            "nodeToNodeMeshEnabled": _BOOLEAN,
            "asNumber": _INTEGER,
            "serviceClusterIPs": _list_of(_CIDR),
            "serviceExternalIPs": _list_of(_CIDR),
            "serviceLoadBalancerIPs": _list_of(_CIDR),
            "listenPort": _INTEGER,
            "communities": _list_of(_FREE),
            "prefixAdvertisements": _list_of(_FREE),
            "nodeMeshPassword": _FREE,
            "nodeMeshMaxRestartTime": _STRING,
            "bindMode": {"type": "string", "enum": ["None", "NodeIP"]},
            "ignoredInterfaces": _list_of(_STRING),
        },
        [],
    ),
    "BGPFilter": (
        "bgpfilters",
        {name: _list_of(_FREE) for name in ("exportV4", "importV4", "exportV6", "importV6")},
        [],
    ),
    "FelixConfiguration": ("felixconfigurations", {}, []),
}


def definitions() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions."""
    return [_definition(kind, *about) for kind, about in _KINDS.items()]


def _definition(
    kind: str, plural: str, properties: dict[str, Any], required: list[str]
) -> dict[str, Any]:
    spec = (
        {"type": "object", "properties": properties, "required": required}
        if properties
        else dict(_FREE)
    )
    schema = {
        "type": "object",
        "properties": {
            "apiVersion": _STRING,
            "kind": _STRING,
            "metadata": {"type": "object"},
            "spec": spec,
        },
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
    }


def objects() -> list[dict[str, Any]]:
    """All objects, in the order in which they are applied."""
    node = account(NAMESPACE, AGENT_ACCOUNT, _NODE_RULES)
    plugin = account(NAMESPACE, PLUGIN_ACCOUNT, _PLUGIN_RULES)
    return [*definitions(), *map(dict, node), *map(dict, plugin)]
