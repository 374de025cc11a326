"""Node objects as flanneld reads them."""

import json


def node(name, subnet, address, mac="", *, backend="vxlan", vni=1, uid="", version="1", managed=True, **notes):
    """A Node with a podCIDR; managed ones carry flannel's annotations."""
    prefix = "flannel.alpha.coreos.com"
    data = json.dumps({"VNI": vni, "VtepMAC": mac}, separators=(",", ":")) if mac else "null"
    annotations = {
        f"{prefix}/kube-subnet-manager": "true",
        f"{prefix}/backend-type": backend,
        f"{prefix}/backend-data": data,
        f"{prefix}/public-ip": address,
    }
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": version,
            "annotations": (annotations if managed else {}) | notes,
        },
        "spec": {"podCIDR": subnet, "podCIDRs": [subnet]} if subnet else {},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }
