"""weave-net in a lab: what stays when it ends, what it takes back, what it repairs."""

import pytest

from kubewire.lab.handle import LabStarter
from kubewire.scenarios.engine.events.options import RunOptions
from kubewire.scenarios.engine.run.runner import run

SCENARIO = """
name: weave-net
title: weave-net ends and comes back
description: A weave-net that ends and comes back.
lab: {topology: {workers: 2}, cni: {plugin: weave}}
fixtures:
  pods:
    a: {node: worker-1, image: netshoot}
    b: {node: worker-2}
steps:
  - exec: {from: worker-1, command: "ip -o -4 address show dev weave", save: exposed}
  - exec: {from: worker-1, command: "curl -s 127.0.0.1:6784/status/ipam | grep worker-1", save: share}
  - component: {name: weave-net, on: workers, action: kill}
  - name: traffic goes on without it
    expect:
      from: pod:a
      http: {to: "pod:b", port: 8080, path: /hostname, equals: b}
  - name: and no pod can be plugged in
    apply:
      - {apiVersion: v1, kind: Pod, metadata: {name: late}, spec: {nodeName: worker-2, containers: [{name: app, image: registry.k8s.io/pause:3.10}]}}
  - expect:
      events: {about: pod/late, reason: FailedCreatePodSandBox, message: 'unable to allocate IP address: Post "http://127.0.0.1:6784/ip/[^"]*": dial tcp 127.0.0.1:6784: connect: connection refused'}
  - name: somebody removes what it made
    exec: {from: worker-1, command: "ip link delete vxlan-6784; iptables -t nat -D POSTROUTING -j WEAVE; iptables -D FORWARD -i weave ! -o weave -j ACCEPT"}
  - expect:
      from: pod:a
      http: {to: "pod:b", port: 8080, path: /hostname, error: any, timeout: 500ms}
  - component: {name: weave-net, on: workers, action: start}
  - name: it makes it again, with the addresses and the share that it had
    expect:
      - from: pod:a
        http: {to: "pod:b", port: 8080, path: /hostname, equals: b}
      - from: worker-1
        rules: {table: nat, contains: "-A POSTROUTING -j WEAVE"}
      - from: worker-1
        rules: {table: filter, contains: "-A FORWARD -i weave ! -o weave -j ACCEPT"}
      - from: worker-1
        exec: {command: "ip -o -4 address show dev weave", equals: "${exposed}"}
      - from: worker-1
        exec: {command: "curl -s 127.0.0.1:6784/status/ipam | grep worker-1", equals: "${share}"}
  - name: the late pod comes in
    wait: {for: pod/late, condition: Ready, within: 60s}
  - name: drift while it runs is repaired, too
    exec: {from: worker-1, command: "ip link delete vxlan-6784; iptables -t nat -F WEAVE"}
  - expect:
      - from: pod:a
        within: 30s
        http: {to: "pod:b", port: 8080, path: /hostname, equals: b}
      - from: worker-1
        within: 30s
        rules: {table: nat, matches: "-A WEAVE -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE"}
  - name: a pod gives its address back, and its interface is gone
    exec: {from: worker-2, command: "curl -s 127.0.0.1:6784/ip | wc -l", save: before}
  - delete: {objects: pod/late, wait: true}
  - expect:
      - from: worker-2
        exec: {command: "echo $(($(curl -s 127.0.0.1:6784/ip | wc -l) + 1)) $(ls -d /sys/class/net/vethwepl* | wc -l)", matches: '^${before} '}
  - name: the plugin says that it is ready
    expect:
      - from: worker-2
        exec: {command: "echo '{\\"cniVersion\\": \\"1.1.0\\", \\"name\\": \\"weave\\"}' | CNI_COMMAND=STATUS CNI_PATH=/opt/cni/bin /opt/cni/bin/weave-net", exit: 0}
"""

SERVICES = """
name: weave-services
title: Ports of a node lead to pods
description: hostPort by portmap, NodePorts of both policies, and the way out.
lab: {topology: {workers: 2}, cni: {plugin: weave}}
manifests:
  - apiVersion: v1
    kind: Pod
    metadata: {name: web, labels: {app: web}}
    spec: {nodeName: worker-1, containers: [{name: web, image: "registry.k8s.io/e2e-test-images/agnhost:2.53", args: [netexec, --http-port=8080], ports: [{containerPort: 8080, hostPort: 8088}]}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: local}
    spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: cluster}
    spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30081}]}
steps:
  - expect:
      - name: hostPort
        from: client
        http: {to: "${node/worker-1.ip}", port: 8088, path: /hostname, equals: web}
      - name: "Local: the pod sees its client (weaver-no-masq-local)"
        from: client
        http: {to: "${node/worker-1.ip}", port: 30080, path: /clientip, matches: "^${host/client.ip}:"}
      - name: "Cluster, by another node: it sees that node's bridge"
        from: client
        http: {to: "${node/worker-2.ip}", port: 30081, path: /clientip, matches: '^10\\.244\\.'}
"""

RACKS = """
name: weave-racks
title: One segment over two racks
description: Routers lie between the nodes, none between the pods.
lab: {topology: {shape: two-racks, workers: 2}, cni: {plugin: weave}}
fixtures:
  pods:
    a: {node: worker-1, image: netshoot}
    b: {node: worker-2, image: netshoot}
steps:
  - name: a packet that no router may pass on arrives, by routers that pass VXLAN on
    expect:
      - from: pod:a
        exec: {command: "ping -c1 -W2 -t 1 ${pod/b.ip}", contains: " 0% packet loss"}
      - from: worker-1
        exec: {command: "ping -c1 -W2 -t 1 ${node/worker-2.ip}", exit: 1}
"""


@pytest.mark.lab
def test_the_segment_goes_over_routers(tmp_path):
    file = tmp_path / "weave-racks.scenario.yaml"
    file.write_text(RACKS)
    assert run([file], LabStarter(), RunOptions(results=tmp_path / "results", quiet=True)) == 0


@pytest.mark.lab
def test_ports_of_a_node_lead_to_pods(tmp_path):
    file = tmp_path / "weave-services.scenario.yaml"
    file.write_text(SERVICES)
    assert run([file], LabStarter(), RunOptions(results=tmp_path / "results", quiet=True)) == 0


@pytest.mark.lab
def test_it_ends_comes_back_and_repairs(tmp_path):
    file = tmp_path / "weave-net.scenario.yaml"
    file.write_text(SCENARIO)
    assert run([file], LabStarter(), RunOptions(results=tmp_path / "results", quiet=True)) == 0
