"""ipamd's socket, EC2's API and azure's store: a request is answered or refused by its own error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from kubewire.components.base import serving
from kubewire.components.networks.aws_vpc_cni.ipamd import Ipamd, Options
from kubewire.components.networks.azure_cni.plugin.state import NoAddress, Store
from kubewire.components.vpc.model import ANYWHERE, Refused, Rule, Subnet, Vpc
from kubewire.components.vpc.service import _ACTIONS, Service
from tests.fuzz.mutation import mutated, mutated_json

REQUESTS: tuple[dict[str, Any], ...] = (
    {"method": "AddNetwork", "sandbox": "c1", "pod": "web", "namespace": "default"},
    {"method": "DelNetwork", "sandbox": "c1"},
    {"method": "Collect", "valid": ["c1"]},
    {"method": "Status"},
)


class NoKernel:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Recording(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.faults.append(logging.Formatter().format(record))


def test_mutated_requests_of_ipamd(examples: int, chance: random.Random, tmp_path: Path) -> None:
    """Through a real socket: each connection gets an answer or its end, and none is a fault."""
    ipamd = Ipamd(Options((3, 4), checkpoint=str(tmp_path / "ipam.json")), cast(Any, None))
    log = logging.getLogger("fuzz.ipamd")
    recording = Recording()
    log.addHandler(recording)
    logging.getLogger("ipamd").setLevel(logging.CRITICAL)

    async def ask() -> None:
        server = await asyncio.start_unix_server(serving.connections(ipamd._serve, log), str(tmp_path / "rpc"))
        for _ in range(examples):
            data = json.dumps(mutated_json(chance, chance.choice(REQUESTS))).encode() + b"\n"
            data = mutated(chance, (data,)) if chance.random() < 0.3 else data
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "rpc"))
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                writer.write_eof()
                async with asyncio.timeout(10):
                    answer = await reader.read()
                assert not answer or isinstance(json.loads(answer), dict)
            writer.close()
        server.close()

    asyncio.run(ask())
    assert recording.faults == []


def test_mutated_actions_of_ec2(examples: int, chance: random.Random) -> None:
    vpc = Vpc("10.0.0.0/16", [Subnet("subnet-a", "10.0.0.0/24", "seg", ("10.0.0.1", "02:00:00:00:00:fe", "r@seg"))])
    vpc.create_group("nodes")
    vpc.authorize("nodes", Rule(ANYWHERE))
    instance = vpc.launch("worker-1", "t3.small", "subnet-a", "10.0.0.5", "02:00:00:00:00:05", "w1@seg", "nodes")
    eni = vpc.attached(instance.id)[0].id
    service = Service(vpc, cast(Any, NoKernel()), {"worker-1": 1}, lambda *_: "p@seg")
    values = [
        "subnet-a",
        "nodes",
        instance.id,
        eni,
        "1",
        "-1",
        "0",
        "10.0.0.9",
        "10.0.0.0/28",
        "tcp",
        "x",
        "9" * 30,
        "",
    ]
    keys = [
        *(
            "SubnetId",
            "SecurityGroupId.1",
            "SecondaryPrivateIpAddressCount",
            "Ipv4PrefixCount",
            "InstanceId",
            "GroupId",
        ),
        *("DeviceIndex", "NetworkInterfaceId", "PrivateIpAddress.1", "Ipv4Prefix.1", "AttachmentId", "GroupName"),
        *("DestinationCidrBlock", "SourceDestCheck.Value", "IpProtocol", "FromPort", "ToPort", "CidrIp"),
    ]
    for _ in range(examples):
        parameters = {key: chance.choice(values) for key in chance.sample(keys, chance.randrange(len(keys)))}
        parameters["Action"] = chance.choice([*_ACTIONS, "Nothing"])
        with contextlib.suppress(Refused, ValueError, LookupError):
            json.dumps(service.act(parameters))
        service.metadata(chance.choice(["", "mac", "network/interfaces/macs/x", "../..", "\x00"]), "10.0.0.5")
    assert len(vpc.interfaces) < 300


def test_mutated_stores_of_azure(examples: int, chance: random.Random, tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    for _ in range(examples):
        body = json.dumps(mutated_json(chance, {"IPAM": {"Addresses": {"10.0.0.4": "", "10.0.0.5": "c1"}}})).encode()
        path.write_bytes(mutated(chance, (body,)) if chance.random() < 0.3 else body)
        with Store(str(path)) as store:
            store.refresh(["10.0.0.4", "10.0.0.6"])
            with contextlib.suppress(NoAddress):
                assert isinstance(store.request("c2"), str)
            store.keep_only({"c2"})
        json.loads(path.read_bytes())
