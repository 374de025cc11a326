"""calico-node in a lab: what it leaves when it ends, what it takes back, how quickly a new node is known."""

import pytest

from kubewire.lab.handle import LabStarter
from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.run.runner import run

SCENARIO = """
name: calico-node
title: calico-node ends and comes back
description: A calico-node that ends and comes back.
lab: {cni: {plugin: calico}}
fixtures:
  pods:
    a: {node: worker-1, image: netshoot}
    b: {node: worker-2}
steps:
  - component: {name: calico-node, on: workers, action: kill}
  - name: traffic goes on without it
    expect:
      from: pod:a
      http: {to: "pod:b", port: 8080, path: /hostname, equals: b}
  - name: somebody removes what it made
    exec: {from: worker-1, command: "ip link delete vxlan.calico; iptables -t nat -D POSTROUTING -j cali-POSTROUTING"}
  - expect:
      from: pod:a
      http: {to: "pod:b", port: 8080, path: /hostname, error: any, timeout: 500ms}
  - component: {name: calico-node, on: workers, action: start}
  - name: it makes it again
    expect:
      - from: pod:a
        http: {to: "pod:b", port: 8080, path: /hostname, equals: b}
      - from: worker-1
        rules: {table: nat, contains: "-A POSTROUTING -j cali-POSTROUTING"}
  - name: and the tunnel's address is the one it had
    expect:
      from: worker-1
      exec: {command: "ip -4 -o address show dev vxlan.calico | wc -l", equals: 1}
  - name: a pod gives its address and its handle back
    save: {ip: "${pod/b.ip}"}
  - delete: {objects: pod/b, wait: true}
  - expect:
      - resource: {of: ipamblocks, jsonpath: "{.items[*].spec.attributes[*].secondary.pod}", absent: '\\bb\\b'}
      - from: worker-2
        routes: {to: "${ip}", count: 0}
  - name: drift without the agent's end is repaired
    exec: {from: worker-1, command: "ip route flush proto 80"}
  - expect:
      from: worker-1
      within: 20s
      exec: {command: "ip route show proto 80 | wc -l", equals: 4}
  - name: a pool without VXLAN needs no tunnel
    patch: {object: ippool/default-ipv4-ippool, patch: {spec: {vxlanMode: Never}}, type: merge}
  - expect:
      - from: worker-1
        exec: {command: "ip link show vxlan.calico", exit: 1}
      - resource: {of: node/worker-1, jsonpath: "{.metadata.annotations}", absent: IPv4VXLANTunnelAddr}
  - patch: {object: ippool/default-ipv4-ippool, patch: {spec: {vxlanMode: Always}}, type: merge}
  - expect:
      from: worker-1
      within: 20s
      exec: {command: "ip route show proto 80 | wc -l; ip -4 -o address show dev vxlan.calico | wc -l", equals: "4\\n1"}
  - name: Felix's configuration is followed
    patch: {object: felixconfiguration/default, patch: {spec: {vxlanVNI: 7}}, type: merge}
  - expect:
      - from: workers
        within: 20s
        exec: {command: "ip -d link show vxlan.calico", contains: vxlan id 7}
      - from: pod:a
        within: 20s
        ping: {to: worker-2}
  - name: a node that is gone gives its blocks back
    component: {name: kubelet, on: worker-3, action: stop}
  - delete: {objects: node/worker-3}
  - expect:
      - within: 20s
        resource: {of: blockaffinities, jsonpath: "{.items[*].spec.node}", absent: worker-3}
      - from: worker-1
        within: 20s
        exec: {command: "ip route show proto 80 | wc -l", equals: 3}
"""


@pytest.mark.lab
def test_it_ends_comes_back_repairs_and_forgets(tmp_path):
    file = tmp_path / "calico-node.scenario.yaml"
    file.write_text(SCENARIO)
    assert run([file], LabStarter(), RunOptions(results=tmp_path / "results", quiet=True)) == 0
