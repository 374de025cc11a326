"""Measures the time from nothing to an answer: `kubewire up` (control plane, 3 workers, CoreDNS), a
Deployment behind a Service, and the first HTTP answer that a pod gets from this Service by its
name.

usage: python benchmarks/bring_up.py [RUNS]

Needs root. Each run starts a new lab.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from measure import kubewire, machine, row, stopwatch

MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: registry.k8s.io/e2e-test-images/agnhost:2.53
        args: [netexec, --http-port=8080]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers:
  - name: shell
    image: nicolaka/netshoot
    command: [sh, -c, "until curl -sf -m 1 http://web.default.svc.cluster.local/hostname; do :; done; echo; sleep 3600"]
"""


def one_run(name: str, figures: dict[str, list[float]]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as manifest:
        manifest.write(MANIFEST)
        manifest.flush()
        began = time.monotonic()
        try:
            with stopwatch(figures["up"]):
                kubewire("up", "--name", name)
            kubewire("kubectl", "--name", name, "apply", "-f", manifest.name)
            while not kubewire(
                "kubectl", "--name", name, "logs", "client", check=False
            ).stdout.strip():
                if time.monotonic() - began > 60:
                    raise SystemExit("no answer from the Service within 60 s")
            figures["answer"].append(time.monotonic() - began)
        finally:
            with stopwatch(figures["down"]):
                kubewire("down", "--name", name)


def main(runs: int) -> None:
    figures: dict[str, list[float]] = {"up": [], "answer": [], "down": []}
    for number in range(runs):
        one_run(f"perf-up-{number}", figures)
        print({name: round(values[-1], 2) for name, values in figures.items()}, file=sys.stderr)
    print(machine())
    print(row("up (nodes Ready, CoreDNS ready)", figures["up"]))
    print(row("up until a pod's request to a Service by name is answered", figures["answer"]))
    print(row("down", figures["down"]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
