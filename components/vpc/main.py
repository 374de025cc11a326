"""The cloud's process. It runs in the namespace of the switches, and answers HTTP in the VPC
router's namespace."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kubewire.components.base import daemon, serving
from kubewire.components.kernel import command, namespaces
from kubewire.components.kernel.command import CommandError
from kubewire.components.vpc.kernel import Kernel, mac_of
from kubewire.components.vpc.model import ANYWHERE, Refused, Rule, Subnet, Vpc
from kubewire.components.vpc.service import Service

log = logging.getLogger("vpc")
#: Instance metadata
#: (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html), and
#: beside it EC2's API: /?Action=...
ADDRESS = "169.254.169.254"
PORT = 80
#: Azure's host agent
#: (https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
HOST_AGENT = "168.63.129.16"
GROUP = "eks-cluster-sg"
#: The largest body that is read; EC2's actions have a few hundred bytes.
_LARGEST_BODY = 1024 * 1024
_PATIENCE_S = 30.0


def main(argv: Sequence[str]) -> int:
    """Returns 0 after SIGTERM. --lab: the topology as JSON (see README.md)."""
    parser = argparse.ArgumentParser(prog="vpc", allow_abbrev=False)
    parser.add_argument("--lab", required=True, type=json.loads)
    lab = parser.parse_args(argv).lab
    daemon.log_to_stderr(0)
    kernel = Kernel(lab["router"])
    vpc = books(lab, kernel)
    kernel.apply(vpc)
    pids = {instance["name"]: instance["pid"] for instance in lab["instances"]}
    service = Service(vpc, kernel, pids, port_name)
    for address in (ADDRESS, HOST_AGENT):
        server = _server(lab["router"], address, service)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    log.info("serving on %s", ADDRESS)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


def port_name(instance: str, index: int, switch: str) -> str:
    """The switch's end of an interface. worker-1's third is w1.2@segment; a name has at most 15
    bytes."""
    short = instance.replace("control-plane", "cp").replace("worker-", "w")
    return f"{short}.{index}@{switch}"[:15]


def books(lab: dict[str, Any], kernel: Kernel) -> Vpc:
    """The VPC with the nodes as they are, in one security group that allows everything. Further
    groups that the lab names allow nothing."""
    subnets = []
    for number, given in enumerate(lab["subnets"], start=1):
        router = given["router"]
        where = router["address"], mac_of(router["pid"], router["interface"]), router["port"]
        subnets.append(Subnet(f"subnet-{number:017x}", given["cidr"], given["switch"], where))
    vpc = Vpc(lab["cidr"], subnets)
    vpc.create_group(GROUP)
    vpc.authorize(GROUP, Rule(ANYWHERE))
    for name in lab["groups"]:
        vpc.create_group(name)
    by_switch = {subnet.switch: subnet for subnet in subnets}
    for node in lab["instances"]:
        mac = mac_of(node["pid"], "eth0")
        subnet = by_switch[node["switch"]]
        vpc.launch(node["name"], node["type"], subnet.id, node["address"], mac, node["port"], GROUP)
        kernel.answers_arp(node["port"])
    for node in lab["instances"]:
        _reserve(vpc, node["name"], int(node.get("reserve", 0)))
    for subnet in lab["subnets"]:
        kernel.pin(subnet["switch"])
        kernel.answers_arp(subnet["router"]["port"])
    return vpc


def _reserve(vpc: Vpc, name: str, count: int) -> None:
    """Assigns the addresses that a node gets at its start (Azure), or none if the subnet is
    full."""
    (instance,) = (instance for instance in vpc.instances.values() if instance.name == name)
    try:
        vpc.assign(vpc.attached(instance.id)[0].id, count)
    except Refused as error:
        log.error("SubnetIsFull: %d addresses for %s: %s", count, name, error.message)


def _server(router: int, address: str, service: Service) -> ThreadingHTTPServer:
    """A server whose socket is in the router's namespace, where the address is added to lo."""
    listening: list[socket.socket] = []

    def listen() -> None:
        namespaces.enter_path(f"/proc/{router}/ns/net")
        command.run_blocking(
            ["ip", "address", "replace", f"{address}/32", "dev", "lo"],
            timeout=10,
            check=True,
        )
        listening.append(socket.create_server((address, PORT), backlog=64))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    server = _Server((address, PORT), _handler(service), bind_and_activate=False)
    server.socket.close()
    (server.socket,) = listening
    return server


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs the current exception; only the request fails."""
        error = sys.exc_info()[1]
        with serving.failing_alone(log, str(client_address)):
            if error is not None:
                raise error


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path.startswith("/latest/meta-data"):
                found = service.metadata(
                    url.path.removeprefix("/latest/meta-data"),
                    self.client_address[0],
                )
                self._answer(404 if found is None else 200, found or "")
            elif url.path.startswith("/machine/plugins"):
                found = service.host_agent(self.client_address[0])
                self._answer(404 if found is None else 200, found or "")
            else:
                self._act(dict(parse_qsl(url.query)))

        def do_POST(self) -> None:
            text = self.headers.get("Content-Length", "0")
            if not text.isdecimal() or int(text[:20]) > _LARGEST_BODY:
                self._refuse(
                    "RequestEntityTooLarge",
                    f"at most {_LARGEST_BODY} bytes are taken",
                    413,
                )
                return
            self._act(dict(parse_qsl(self.rfile.read(int(text)).decode(errors="replace"))))

        def do_PUT(self) -> None:
            """IMDSv2 asks for a token first; its value is not checked."""
            self._answer(200, "token")

        def _act(self, parameters: dict[str, str]) -> None:
            try:
                status = 200
                body = service.act(parameters)
            except Refused as error:
                self._refuse(error.code, error.message)
                return
            except (ValueError, LookupError) as error:
                self._refuse("InvalidParameterValue", str(error))
                return
            except (CommandError, OSError) as error:
                log.error("%s", error)
                status = 500
                body = {"Error": {"Code": "InternalError", "Message": str(error)}}
            self._answer(status, json.dumps(body))

        def _refuse(self, code: str, message: str, status: int = 400) -> None:
            self.close_connection = True
            self._answer(status, json.dumps({"Error": {"Code": code, "Message": message}}))

        def _answer(self, status: int, text: str) -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Does nothing: the service logs actions."""

    return Handler


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
