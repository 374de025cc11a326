"""Node objects as flanneld reads them."""

import json


def node(name, subnet, address, mac="", *, backend="vxlan", vni=1, uid="", version="1", managed=True, ipv6=(), **notes):
    """A Node with a podCIDR; managed ones carry flannel's annotations. ipv6: (subnet, address, MAC) of that family."""
    prefix = "flannel.alpha.coreos.com"
    data = json.dumps({"VNI": vni, "VtepMAC": mac}, separators=(",", ":")) if mac else "null"
    annotations = {
        f"{prefix}/kube-subnet-manager": "true",
        f"{prefix}/backend-type": backend,
        f"{prefix}/backend-data": data,
        f"{prefix}/public-ip": address,
    }
    subnets, addresses = [subnet] if subnet else [], [address]
    if ipv6:
        subnets.append(ipv6[0])
        addresses.append(ipv6[1])
        annotations[f"{prefix}/backend-v6-data"] = json.dumps({"VNI": vni, "VtepMAC": ipv6[2]}, separators=(",", ":"))
        annotations[f"{prefix}/public-ipv6"] = ipv6[1]
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": version,
            "annotations": (annotations if managed else {}) | notes,
        },
        "spec": {"podCIDR": subnets[0], "podCIDRs": subnets} if subnets else {},
        "status": {"addresses": [{"type": "InternalIP", "address": one} for one in addresses]},
    }
