"""The L-IPAM daemon: keeps a warm pool of addresses on the node's interfaces and assigns them to
pods.

In a VPC every pod has an address of a VPC subnet, and a packet between pods is an ordinary packet
of the VPC. So an address must be assigned to one of the node's network interfaces (ENIs) at EC2
before a pod may use it. That call takes seconds in the cloud and may be throttled; a pod's creation
cannot wait for it. Hence ipamd separates the two: it fetches addresses in advance (pool.py decides
how many), and the plugin only asks it, locally, for one that is free.

EC2's source check drops packets whose source address belongs to another interface. So a pod with an
address of ethN must also leave by ethN, by a routing table of that interface and a rule `from POD`
(dataplane.py).

Assignments are written to a file, because ipamd may restart while pods run, and an address must
never have two pods. The conflist is installed after the first fill, so the node becomes Ready only
with addresses.

(amazon-vpc-cni-k8s: pkg/ipamd/ipamd.go, rpc_handler.go, introspect.go)
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kubewire.components.base import health, jsontext, serving
from kubewire.components.kernel import files, iproute, iptables
from kubewire.components.kernel.command import CommandError
from kubewire.components.kernel.iproute import text
from kubewire.components.networks.aws_vpc_cni import dataplane, install
from kubewire.components.networks.aws_vpc_cni.ec2 import Ec2, Ec2Error
from kubewire.components.networks.aws_vpc_cni.environment import Configuration, skipped
from kubewire.components.networks.aws_vpc_cni.pool import (
    Assignment,
    Eni,
    NoAddress,
    Pool,
    Targets,
)

log = logging.getLogger("ipamd")
RPC = ("127.0.0.1", 50051)
#: The interval between checks of the pool, as upstream; a change of the pool triggers a check at
#: once.
_RECONCILE_S = 5.0
_RETRY_S = 1.0


@dataclass(frozen=True)
class Options:
    """limits: the type's number of interfaces, and of addresses on each. environment: of upstream's
    DaemonSet."""

    limits: tuple[int, int]
    interface: str = "eth0"
    environment: Mapping[str, str] = ()  # type: ignore[assignment]
    conf_dir: str = "/etc/cni/net.d"
    bin_dir: str = "/opt/cni/bin"
    checkpoint: str = "/var/run/aws-node/ipam.json"


class Ipamd:
    """run() returns only when it is cancelled."""

    def __init__(self, options: Options, ec2: Ec2) -> None:
        self._options = options
        self._ec2 = ec2
        self._environment = dict(options.environment)
        self._configuration = Configuration.of(self._environment)
        interfaces, addresses = options.limits
        most = int(self._environment.get("MAX_ENI") or 0)
        self.pool = Pool(
            Targets.of(self._environment),
            min(most, interfaces) if most > 0 else interfaces,
            addresses - 1,
            self._configuration.cooldown,
        )
        self._changed = asyncio.Event()
        self._vpc = self._primary = self._instance = self._subnet_id = ""
        self._mtu = 1500

    async def run(self) -> None:
        """Raises CommandError or OSError if the daemon cannot start."""
        await self._start()
        servers = [await asyncio.start_server(serving.connections(self._serve, log), *RPC)]
        if where := self._configuration.introspection:
            servers.append(await health.serve_pages({"/v1/enis": self._enis}, *where, log))
        try:
            await self._fill()
            mtu = self._configuration.pod_mtu or self._mtu
            content = install.conflist(mtu, self._configuration)
            install.install(content, self._options.conf_dir, self._options.bin_dir)
            log.info("Copied the plugin and %s", install.CONFLIST_NAME)
            while True:
                await self._wait()
                await self._fill()
        finally:
            for server in servers:
                server.close()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_RECONCILE_S):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def _start(self) -> None:
        while True:
            try:
                await self._learn()
                break
            except Ec2Error as error:
                log.warning("%s", error)
                await asyncio.sleep(_RETRY_S)
        rules = await _rules()
        if ("fwmark 0x80/0x80", dataplane.MARK_PRIORITY, "main") not in rules:
            await iproute.batch("ip", text([dataplane.mark_rule()]), force=False)
        stale = [rule[0] for rule in rules if rule[1] == dataplane.EXTERNAL_PRIORITY]
        lines = dataplane.external_rules(self._configuration.external, len(stale))
        await iproute.batch("ip", text(lines), force=False)
        for part in skipped(self._environment):
            log.error("%s is not a valid IPv4 CIDR; it is skipped", part)
        await self._set_nat()
        self._restore()

    async def _learn(self) -> None:
        """Reads which instance this is, and its interfaces and addresses."""
        self._instance = await self._ec2.metadata("instance-id")
        mac = await self._ec2.metadata("mac")
        about = f"network/interfaces/macs/{mac}"
        self._vpc = await self._ec2.metadata(f"{about}/vpc-ipv4-cidr-blocks")
        self._primary = await self._ec2.metadata("local-ipv4")
        self._subnet_id = await self._ec2.metadata(f"{about}/subnet-id")
        (link,) = await iproute.query("ip", "link", "show", "dev", self._options.interface)
        self._mtu = int(link["mtu"])
        for line in (await self._ec2.metadata("network/interfaces/macs")).splitlines():
            await self._adopt(line.rstrip("/"))

    async def _adopt(self, mac: str) -> Eni:
        about = f"network/interfaces/macs/{mac}"
        addresses = (await self._ec2.metadata(f"{about}/local-ipv4s")).split()
        prefixes = (await self._ec2.metadata(f"{about}/ipv4-prefix")).split()
        eni = Eni(
            await self._ec2.metadata(f"{about}/interface-id"),
            int(await self._ec2.metadata(f"{about}/device-number")),
            mac,
            addresses[0],
            await self._ec2.metadata(f"{about}/subnet-ipv4-cidr-block"),
            [*addresses[1:], *(address for prefix in prefixes for address in _addresses(prefix))],
            prefixes,
        )
        if eni.index:
            await iproute.batch(
                "ip",
                text(dataplane.eni_setup(eni, self._configuration.eni_mtu or self._mtu)),
                check=False,
            )
        self.pool.enis[eni.id] = eni
        return eni

    async def _set_nat(self) -> None:
        wanted = dataplane.rules(
            self._vpc, self._primary, self._options.interface, self._configuration
        )
        await iptables.ensure(wanted)

    def _restore(self) -> None:
        try:
            saved = json.loads(Path(self._options.checkpoint).read_text())
            held = self.pool.restore(Assignment(**entry) for entry in saved["allocations"])
            log.info("%d addresses are still assigned", len(held))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("%s: %s", self._options.checkpoint, error)

    async def _fill(self) -> None:
        """Fetches addresses up to the targets, as far as possible, then returns surplus ones."""
        if not self._configuration.provisions:
            return
        try:
            while self.pool.wants_more():
                if not await self._grow():
                    break
            for eni, addresses in self.pool.surplus_addresses(time.monotonic()):
                await self._give_back(eni, addresses)
            if not self.pool.wants_more() and (idle := self.pool.surplus_eni(time.monotonic())):
                await self._drop(idle)
        except Ec2Error as error:
            log.error("%s", error)
        except CommandError as error:
            log.error("%s", error)

    async def _grow(self) -> bool:
        """Fetches addresses for an interface, or attaches another interface. False if neither is
        possible."""
        for eni, places in self.pool.room():
            if await self._add_to(eni, self.pool.ask(places)):
                return True
        if not self.pool.can_attach():
            return False
        return await self._attach()

    async def _add_to(self, eni: Eni, count: int) -> bool:
        """Fetches count addresses, or one if the subnet has too few."""
        key = "Ipv4PrefixCount" if self.pool.targets.prefixes else "SecondaryPrivateIpAddressCount"
        for number in dict.fromkeys((count, 1)):
            try:
                answer = await self._ec2.call(
                    "AssignPrivateIpAddresses",
                    NetworkInterfaceId=eni.id,
                    **{key: number},
                )
            except Ec2Error as error:
                log.error("Unable to assign addresses to %s: %s", eni.id, error)
                if error.code not in (
                    "InsufficientFreeAddressesInSubnet",
                    "InsufficientCidrBlocks",
                ):
                    return False
                continue
            prefixes = [entry["Ipv4Prefix"] for entry in answer.get("AssignedIpv4Prefixes", ())]
            eni.prefixes += prefixes
            assigned = answer.get("AssignedPrivateIpAddresses", ())
            eni.addresses += [entry["PrivateIpAddress"] for entry in assigned]
            eni.addresses += [address for prefix in prefixes for address in _addresses(prefix)]
            return True
        return False

    async def _attach(self) -> bool:
        """Attaches an interface with the groups of the first one, or those of
        ENI_SECURITY_GROUPS."""
        key = "Ipv4PrefixCount" if self.pool.targets.prefixes else "SecondaryPrivateIpAddressCount"
        first = min(self.pool.enis.values(), key=lambda eni: eni.index)
        custom = self._environment.get("ENI_SECURITY_GROUPS", "").split()
        groups = (
            custom
            or (
                await self._ec2.metadata(f"network/interfaces/macs/{first.mac}/security-group-ids")
            ).split()
        )
        named = {
            f"SecurityGroupId__{number}": group for number, group in enumerate(groups, start=1)
        }
        for count in dict.fromkeys((self.pool.ask(self.pool.slots), 1)):
            try:
                created = await self._ec2.call(
                    "CreateNetworkInterface",
                    SubnetId=self._subnet_id,
                    **{key: count},
                    **named,
                )
                break
            except Ec2Error as error:
                log.error("Failed to increase pool size due to not able to allocate ENI: %s", error)
        else:
            return False
        name = created["NetworkInterface"]["NetworkInterfaceId"]
        try:
            await self._ec2.call(
                "AttachNetworkInterface",
                NetworkInterfaceId=name,
                InstanceId=self._instance,
                DeviceIndex=self.pool.next_index(),
            )
        except Ec2Error as error:
            log.error("Failed to attach %s: %s", name, error)
            await self._ec2.call("DeleteNetworkInterface", NetworkInterfaceId=name)
            return False
        eni = await self._adopt(created["NetworkInterface"]["MacAddress"])
        log.info("Attached %s as %s with %d addresses", eni.id, eni.device, len(eni.addresses))
        return True

    async def _give_back(self, eni: Eni, addresses: list[str]) -> None:
        named = {
            f"PrivateIpAddress__{number}": address
            for number, address in enumerate(addresses, start=1)
        }
        await self._ec2.call("UnassignPrivateIpAddresses", NetworkInterfaceId=eni.id, **named)
        eni.addresses = [address for address in eni.addresses if address not in addresses]

    async def _drop(self, eni: Eni) -> None:
        del self.pool.enis[eni.id]
        await self._ec2.call("DetachNetworkInterface", NetworkInterfaceId=eni.id)
        await self._ec2.call("DeleteNetworkInterface", NetworkInterfaceId=eni.id)
        log.info("Freed %s", eni.id)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request. Request and answer are lines of JSON."""
        async with asyncio.timeout(30):
            try:
                request = jsontext.parse_object(await reader.readuntil(b"\n"))
                answer = self.answer(request.pop("method"), **request)
            except (ValueError, KeyError, TypeError) as error:
                log.error("malformed request: %s", error)
                return
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()

    def answer(self, method: str, **given: Any) -> dict[str, Any]:
        """Raises KeyError for an unknown method."""
        methods = {
            "AddNetwork": self._add_network,
            "DelNetwork": self._delete_network,
            "Collect": self._collect,
            "Status": lambda: {"success": True},
        }
        answer: dict[str, Any] = methods[method](**given)  # type: ignore[operator]
        return answer

    def _add_network(self, sandbox: str, pod: str, namespace: str) -> dict[str, Any]:
        try:
            held = self.pool.assign(sandbox, time.monotonic(), pod, namespace)
        except NoAddress as error:
            log.error("%s (%s/%s)", error, namespace, pod)
            self._changed.set()
            return {"success": False}
        self._keep()
        eni = next(eni for eni in self.pool.enis.values() if eni.index == held.index)
        log.info("AddNetworkReply: %s for %s/%s by %s", held.address, namespace, pod, eni.device)
        return {"success": True, "address": held.address, "table": eni.table}

    def _delete_network(self, sandbox: str) -> dict[str, Any]:
        released = self.pool.release(sandbox, time.monotonic())
        self._keep()
        return {"success": released is not None, "address": released.address if released else ""}

    def _collect(self, valid: list[str]) -> dict[str, Any]:
        gone = [held for held in self.pool.assigned.values() if held.sandbox not in valid]
        for held in gone:
            self.pool.release(held.sandbox, time.monotonic())
        self._keep()
        return {"released": [held.address for held in gone]}

    def _keep(self) -> None:
        """Writes the assignments to the file that the next ipamd reads, and triggers a check of the
        pool."""
        saved = {"allocations": [asdict(held) for held in self.pool.assigned.values()]}
        files.replace(self._options.checkpoint, json.dumps(saved).encode())
        self._changed.set()

    def _enis(self) -> health.Page:
        """What aws-cni-support.sh and users ask for."""
        return health.Page(json.dumps(self.described()).encode(), "application/json")

    def described(self) -> dict[str, Any]:
        enis = {
            eni.id: {
                "ID": eni.id,
                "IsPrimary": eni.index == 0,
                "DeviceNumber": eni.index,
                "AvailableIPv4Cidrs": {
                    address: {"Assigned": address in self.pool.assigned}
                    for address in eni.addresses
                },
            }
            for eni in self.pool.enis.values()
        }
        return {"TotalIPs": self.pool.total, "AssignedIPs": len(self.pool.assigned), "ENIs": enis}


def _addresses(prefix: str) -> list[str]:
    import ipaddress

    return [str(address) for address in ipaddress.IPv4Network(prefix)]


async def _rules() -> set[tuple[str, int, str]]:
    rules = set()
    for entry in await iproute.query("ip", "rule", "show"):
        selector = (
            f"fwmark {entry['fwmark']}/{entry.get('fwmask', '')}"
            if "fwmark" in entry
            else f"from {entry.get('src', 'all')}"
        )
        rules.add((selector, int(entry["priority"]), str(entry.get("table", ""))))
    return rules
