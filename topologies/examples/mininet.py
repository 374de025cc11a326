"""Two switches with hosts, as `mn --custom` takes it; topologies/examples/mininet.yaml names it."""

from mininet.topo import Topo


class TwoSwitches(Topo):  # type: ignore[misc]
    """hosts are spread over the two switches; the link between these is the bottleneck."""

    def build(self, hosts: int = 4) -> None:
        left, right = self.addSwitch("s1"), self.addSwitch("s2")
        for number in range(1, hosts + 1):
            self.addLink(self.addHost(f"h{number}"), left if number % 2 else right)
        self.addLink(left, right, bw=50)


topos = {"twoswitches": TwoSwitches}
