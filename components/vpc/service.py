"""The cloud's services over HTTP: EC2's API (its actions and errors, with answers as the aws
command prints them), and the metadata of the instance that asks.

(https://docs.aws.amazon.com/AWSEC2/latest/APIReference/; .../UserGuide/ec2-instance-metadata.html)
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubewire.components.vpc.kernel import Kernel
from kubewire.components.vpc.model import ANYWHERE, Interface, Refused, Rule, Vpc

log = logging.getLogger("vpc")
Parameters = Mapping[str, str]
Answer = dict[str, Any]


class Service:
    """Handles one request at a time, because the model is not thread-safe.

    pids: of the instances, by name. port_name: names the switch's port of a new interface.
    """

    def __init__(
        self,
        vpc: Vpc,
        kernel: Kernel,
        pids: Mapping[str, int],
        port_name: Callable[[str, int, str], str],
    ) -> None:
        self.vpc = vpc
        self._kernel = kernel
        self._pids = pids
        self._port_name = port_name
        self._lock = threading.Lock()

    def act(self, parameters: Parameters) -> Answer:
        """Executes an action of EC2's API. Raises Refused, CommandError, OSError."""
        name = parameters.get("Action", "")
        action = _ACTIONS.get(name)
        if action is None:
            raise Refused("InvalidAction", f"The action {name} is not valid for this web service.")
        with self._lock:
            answer = action(self, parameters)
            self._kernel.apply(self.vpc)
        log.info(
            "%s %s",
            name,
            json.dumps({key: value for key, value in parameters.items() if key != "Action"}),
        )
        return answer

    def metadata(self, path: str, address: str) -> str | None:
        """The content of /latest/meta-data/...; None if it does not exist."""
        with self._lock:
            instance = self.vpc.instance_at(address)
            if instance is None:
                return None
            found: Any = self._metadata(instance.id)
        for part in filter(None, path.split("/")):
            if not isinstance(found, dict) or part not in found:
                return None
            found = found[part]
        if isinstance(found, dict):
            return "\n".join(
                f"{key}/" if isinstance(value, dict) else key for key, value in found.items()
            )
        return str(found)

    def _metadata(self, instance: str) -> dict[str, Any]:
        interfaces = self.vpc.attached(instance)
        first = interfaces[0]
        about = self.vpc.instances[instance]
        return {
            "hostname": about.name,
            "instance-id": about.id,
            "instance-type": about.type,
            "local-ipv4": first.primary,
            "mac": first.mac,
            "network": {
                "interfaces": {
                    "macs": {
                        interface.mac: self._interface_metadata(interface)
                        for interface in interfaces
                    },
                },
            },
            "placement": {"availability-zone": first.subnet.switch},
        }

    def _interface_metadata(self, interface: Interface) -> dict[str, str]:
        return {
            "device-number": str(interface.index),
            "interface-id": interface.id,
            "local-ipv4s": "\n".join((interface.primary, *interface.secondary)),
            "ipv4-prefix": "\n".join(interface.prefixes),
            "mac": interface.mac,
            "security-group-ids": "\n".join(interface.groups),
            "subnet-id": interface.subnet.id,
            "subnet-ipv4-cidr-block": interface.subnet.cidr,
            "vpc-ipv4-cidr-blocks": self.vpc.cidr,
        }

    def host_agent(self, address: str) -> str | None:
        """The answer of Azure's host agent to an instance: its interfaces with their addresses, as
        XML."""
        with self._lock:
            instance = self.vpc.instance_at(address)
            interfaces = self.vpc.attached(instance.id) if instance else []
        if not interfaces:
            return None
        return "<Interfaces>" + "".join(map(_interface_xml, interfaces)) + "</Interfaces>"

    def create_route(self, parameters: Parameters) -> Answer:
        self.vpc.create_route(
            _needed(parameters, "DestinationCidrBlock"),
            _needed(parameters, "InstanceId"),
        )
        return {"Return": True}

    def create_network_interface(self, parameters: Parameters) -> Answer:
        interface = self.vpc.create_interface(
            _needed(parameters, "SubnetId"),
            _listed(parameters, "SecurityGroupId"),
            int(parameters.get("SecondaryPrivateIpAddressCount", 0)),
            int(parameters.get("Ipv4PrefixCount", 0)),
        )
        return {"NetworkInterface": describe(interface)}

    def attach_network_interface(self, parameters: Parameters) -> Answer:
        instance = _needed(parameters, "InstanceId")
        index = int(_needed(parameters, "DeviceIndex"))
        interface = self.vpc.attach(_needed(parameters, "NetworkInterfaceId"), instance, index)
        name = self.vpc.instances[instance].name
        interface.port = self._port_name(name, index, interface.subnet.switch)
        self._kernel.plug(interface, self._pids[name])
        return {"AttachmentId": f"eni-attach-{interface.id.removeprefix('eni-')}"}

    def detach_network_interface(self, parameters: Parameters) -> Answer:
        name = (
            parameters.get("NetworkInterfaceId")
            or "eni-" + _needed(parameters, "AttachmentId")[11:]
        )
        interface = self.vpc.detach(name)
        self._kernel.unplug(interface.port)
        interface.port = ""
        return {}

    def delete_network_interface(self, parameters: Parameters) -> Answer:
        self.vpc.delete(_needed(parameters, "NetworkInterfaceId"))
        return {}

    def describe_network_interfaces(self, parameters: Parameters) -> Answer:
        names = _listed(parameters, "NetworkInterfaceId")
        interfaces = [
            interface
            for interface in self.vpc.interfaces.values()
            if not names or interface.id in names
        ]
        return {"NetworkInterfaces": [describe(interface) for interface in interfaces]}

    def describe_instances(self, parameters: Parameters) -> Answer:
        instances = [
            {
                "InstanceId": instance.id,
                "InstanceType": instance.type,
                "PrivateDnsName": instance.name,
            }
            for instance in self.vpc.instances.values()
        ]
        return {"Reservations": [{"Instances": instances}]}

    def describe_subnets(self, parameters: Parameters) -> Answer:
        subnets = [
            {
                "SubnetId": subnet.id,
                "CidrBlock": subnet.cidr,
                "AvailabilityZone": subnet.switch,
                "AvailableIpAddressCount": self.vpc.free_addresses(subnet.id),
            }
            for subnet in self.vpc.subnets.values()
        ]
        return {"Subnets": subnets}

    def assign_private_ip_addresses(self, parameters: Parameters) -> Answer:
        name = _needed(parameters, "NetworkInterfaceId")
        answer: Answer = {"NetworkInterfaceId": name}
        if count := int(parameters.get("SecondaryPrivateIpAddressCount", 0)):
            addresses = self.vpc.assign(name, count)
            answer["AssignedPrivateIpAddresses"] = [
                {"PrivateIpAddress": address} for address in addresses
            ]
        if count := int(parameters.get("Ipv4PrefixCount", 0)):
            prefixes = self.vpc.assign_prefixes(name, count)
            answer["AssignedIpv4Prefixes"] = [{"Ipv4Prefix": prefix} for prefix in prefixes]
        return answer

    def unassign_private_ip_addresses(self, parameters: Parameters) -> Answer:
        addresses = _listed(parameters, "PrivateIpAddress")
        prefixes = _listed(parameters, "Ipv4Prefix")
        self.vpc.unassign(_needed(parameters, "NetworkInterfaceId"), addresses, prefixes)
        return {}

    def modify_network_interface_attribute(self, parameters: Parameters) -> Answer:
        name = _needed(parameters, "NetworkInterfaceId")
        if groups := _listed(parameters, "SecurityGroupId"):
            self.vpc.set_groups(name, groups)
        if text := parameters.get("SourceDestCheck.Value"):
            self.vpc.interfaces[name].source_check = text.lower() == "true"
        return {"Return": True}

    def create_security_group(self, parameters: Parameters) -> Answer:
        return {"GroupId": self.vpc.create_group(_needed(parameters, "GroupName"))}

    def describe_security_groups(self, parameters: Parameters) -> Answer:
        groups = [
            {"GroupId": name, "IpPermissions": [_permission(rule) for rule in sorted(rules)]}
            for name, rules in self.vpc.groups.items()
        ]
        return {"SecurityGroups": groups}

    def authorize_security_group_ingress(self, parameters: Parameters) -> Answer:
        self.vpc.authorize(_needed(parameters, "GroupId"), _rule(parameters))
        return {"Return": True}

    def revoke_security_group_ingress(self, parameters: Parameters) -> Answer:
        self.vpc.revoke(_needed(parameters, "GroupId"), _rule(parameters))
        return {"Return": True}


_ACTIONS: dict[str, Callable[[Service, Parameters], Answer]] = {
    "".join(word.capitalize() for word in name.split("_")): getattr(Service, name)
    for name in vars(Service)
    if name.split("_")[0]
    in (
        "create",
        "attach",
        "detach",
        "delete",
        "describe",
        "assign",
        "unassign",
        "modify",
        "authorize",
        "revoke",
    )
}


def _interface_xml(interface: Interface) -> str:
    addresses = "".join(
        f'<IPAddress Address="{address}" IsPrimary="{str(address == interface.primary).lower()}"/>'
        for address in interface.addresses()
    )
    mac = interface.mac.replace(":", "").upper()
    return (
        f'<Interface MacAddress="{mac}" IsPrimary="{str(interface.index == 0).lower()}">'
        f'<IPSubnet Prefix="{interface.subnet.cidr}">{addresses}</IPSubnet></Interface>'
    )


def describe(interface: Interface) -> Answer:
    described: Answer = {
        "NetworkInterfaceId": interface.id,
        "SubnetId": interface.subnet.id,
        "MacAddress": interface.mac,
        "PrivateIpAddress": interface.primary,
        "PrivateIpAddresses": [
            {"PrivateIpAddress": address, "Primary": address == interface.primary}
            for address in (interface.primary, *interface.secondary)
        ],
        "Ipv4Prefixes": [{"Ipv4Prefix": prefix} for prefix in interface.prefixes],
        "Groups": [{"GroupId": group} for group in interface.groups],
        "SourceDestCheck": interface.source_check,
        "Status": "in-use" if interface.instance else "available",
    }
    if interface.instance:
        described["Attachment"] = {
            "InstanceId": interface.instance,
            "DeviceIndex": interface.index,
            "Status": "attached",
        }
    return described


def _needed(parameters: Parameters, key: str) -> str:
    if not parameters.get(key):
        raise Refused("MissingParameter", f"The request must contain the parameter {key}")
    return parameters[key]


def _listed(parameters: Parameters, key: str) -> Sequence[str]:
    """The values of Key.1, Key.2 ..., or of Key alone."""
    numbered = [value for name, value in parameters.items() if name.startswith(f"{key}.")]
    return numbered or ([parameters[key]] if parameters.get(key) else [])


def _rule(parameters: Parameters) -> Rule:
    source = parameters.get("SourceSecurityGroupId") or parameters.get("CidrIp") or ANYWHERE
    ports = (
        int(parameters.get("FromPort", 0)),
        int(parameters.get("ToPort", parameters.get("FromPort", 0))),
    )
    return Rule(source, parameters.get("IpProtocol", "-1"), ports)


def _permission(rule: Rule) -> Answer:
    permission: Answer = {"IpProtocol": rule.protocol, "Source": rule.source}
    return permission | (
        {"FromPort": rule.ports[0], "ToPort": rule.ports[1]} if rule.ports != (0, 0) else {}
    )
