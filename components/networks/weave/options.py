"""The options of one weave-net: weaver's flags, and the values that launch.sh determines."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network

from kubewire.components.networks.weave import dataplane, install
from kubewire.components.networks.weave.mesh import Timing


@dataclass(frozen=True)
class Options:
    """main.py makes them from the command line. init: consensus=N, seed=PEER,PEER or observer."""

    kubeconfig: str
    nodename: str
    interface: str
    range: IPv4Network
    default_subnet: IPv4Network
    init: str
    name: str
    port: int = 6783
    http_addr: str = "127.0.0.1:6784"
    status_addr: str = "0.0.0.0:6782"
    db_prefix: str = "/var/lib/weave/weave-net"
    mtu: int = dataplane.DEFAULT_MTU
    conn_limit: int = 200
    fastdp: bool = True
    expect_npc: bool = False
    password_secret: str = ""
    cni_conf_dir: str = install.DEFAULT_CONF_DIR
    cni_bin_dir: str = install.DEFAULT_BIN_DIR
    timing: Timing = field(default_factory=Timing)
    #: Seconds between two ticks of the allocator, and two of the periodic gossip.
    tick: float = 5.0
    gossip: float = 30.0

    @property
    def quorum(self) -> int:
        """The smallest majority of the peers that launch.sh counted; 0 for an observer or a
        seed."""
        kind, _, value = self.init.partition("=")
        return int(value or "1") // 2 + 1 if kind == "consensus" else 0

    @property
    def seed(self) -> tuple[str, ...]:
        kind, _, value = self.init.partition("=")
        return tuple(value.split(",")) if kind == "seed" and value else ()
