"""Measures 20 nodes and 200 pods: the time until all are Ready and can be reached, memory, and the
time to end the lab.

usage: python benchmarks/scale.py [NODES [PODS [RUNS]]]

Needs root. Each run starts a new lab. At the end, one pod sends an HTTP request to the address of
every other pod, and the answers are counted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from measure import kubewire, lab_record, machine, proportional_memory, row, stopwatch

MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: many}}
spec:
  replicas: {pods}
  selector: {{matchLabels: {{app: many}}}}
  template:
    metadata: {{labels: {{app: many}}}}
    spec:
      containers:
      - name: app
        image: registry.k8s.io/e2e-test-images/agnhost:2.53
        args: [netexec, --http-port=8080]
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
"""


def pods(name: str) -> list[dict[str, object]]:
    listed = kubewire(
        "kubectl", "--name", name, "get", "pods", "-l", "app=many", "-o", "json"
    ).stdout
    items: list[dict[str, object]] = json.loads(listed)["items"]
    return items


def reachable(name: str, items: list[dict[str, object]]) -> int:
    from kubewire.lab.handle import RunningLab
    from kubewire.lab.state import running

    addresses = [item["status"]["podIP"] for item in items]  # type: ignore[index]
    lab = RunningLab(*running(name))
    urls = [f"http://{address}:8080/hostname" for address in addresses]
    first = items[0]["metadata"]["name"]  # type: ignore[index]
    script = "for u in $*; do curl -s -o /dev/null -m 2 -w '%{http_code}\\n' $u; done"
    done = lab.exec(f"pod:default/{first}", ["sh", "-c", script, "sh", *urls], timeout=120)
    return done.text.split().count("200")


def one_run(name: str, nodes: int, count: int, figures: dict[str, list[float]]) -> None:
    try:
        began = time.monotonic()
        with stopwatch(figures["up"]):
            kubewire("up", "--name", name, "--workers", str(nodes - 1))
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as manifest:
            manifest.write(MANIFEST.format(pods=count))
            manifest.flush()
            kubewire("kubectl", "--name", name, "apply", "-f", manifest.name)
            kubewire(
                "kubectl",
                "--name",
                name,
                "rollout",
                "status",
                "deployment/many",
                "--timeout=120s",
            )
        figures["ready"].append(time.monotonic() - began)
        figures["memory"].append(proportional_memory(int(str(lab_record(name)["init_pid"]))))
        figures["answered"].append(reachable(name, pods(name)))
        figures["reachable"].append(time.monotonic() - began)
    finally:
        with stopwatch(figures["down"]):
            kubewire("down", "--name", name)


def main(nodes: int, count: int, runs: int) -> None:
    figures: dict[str, list[float]] = {
        name: [] for name in ("up", "ready", "reachable", "answered", "memory", "down")
    }
    for number in range(runs):
        one_run(f"perf-scale-{number}", nodes, count, figures)
        print({name: round(values[-1], 2) for name, values in figures.items()}, file=sys.stderr)
    print(machine())
    print(row(f"up with {nodes} nodes", figures["up"]))
    print(row(f"up until {count} pods on them are Ready", figures["ready"]))
    print(row("up until one of them has had an answer from every other", figures["reachable"]))
    print(row(f"pods of {count} that answered", figures["answered"], ""))
    print(row("memory of the whole lab (PSS)", figures["memory"], "MiB"))
    print(row("down", figures["down"]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    given = [int(argument) for argument in sys.argv[1:]]
    main(*given, *(20, 200, 3)[len(given) :])
