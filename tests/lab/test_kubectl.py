"""Unmodified kubectl against a real lab: the lines that people paste, verbatim, with both versions."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kubewire.lab.handle import RunningLab
from tests.lab import kubectls

pytestmark = pytest.mark.lab


@dataclass
class Shell:
    """A shell whose `kubectl` is the one under test, and a namespace to work in."""

    folder: Path
    environment: dict[str, str]
    namespace: str

    def __call__(self, command: str, *, code: int = 0, timeout: float = 60.0) -> str:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def on_a_terminal(self, command: str, timeout: float = 60.0) -> str:
        """The command with a terminal of its own, as `-it` asks for."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            ["bash", "-c", command], env=self.environment, stdin=slave, stdout=slave, stderr=slave, cwd=self.folder
        )
        os.close(slave)
        output = bytearray()

        def read() -> None:
            while True:
                try:
                    chunk = os.read(master, 65536)
                except OSError:
                    return
                if not chunk:
                    return
                output.extend(chunk)

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        code = process.wait(timeout)
        reader.join(5)
        os.close(master)
        text = output.decode(errors="replace")
        assert code == 0, f"{command}\n{text}"
        return text


@pytest.fixture(params=["this machine's kubectl", "Debian 12's kubectl"], scope="module")
def program(request: pytest.FixtureRequest) -> str:
    if request.param == "this machine's kubectl":
        return kubectls.installed()
    found = kubectls.debian()
    if found is None:
        pytest.skip("Debian's kubernetes-client cannot be downloaded here")
    if found == kubectls.installed():
        pytest.skip("this machine's kubectl is Debian's: tested as such")
    return found


WORLD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: my-service}
spec:
  replicas: 2
  selector: {matchLabels: {app: my-service}}
  template:
    metadata: {labels: {app: my-service}}
    spec:
      containers:
      - name: web
        image: registry.k8s.io/e2e-test-images/agnhost:2.53
        args: [netexec, --http-port=8080]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: my-service}
spec:
  selector: {app: my-service}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: pod-a}
spec:
  terminationGracePeriodSeconds: 0  # sleep as PID 1 ignores SIGTERM
  containers: [{name: shell, image: nicolaka/netshoot, command: [sleep, "3600"]}]
"""


@pytest.fixture(scope="module")
def shell(running_lab: RunningLab, program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("shell")
    (folder / "bin").mkdir()
    (folder / "bin" / "kubectl").symlink_to(program)
    (folder / "world.yaml").write_text(WORLD)
    namespace = f"ns-{uuid.uuid4().hex[:6]}"
    config = folder / "config"
    config.write_text(running_lab.kubeconfig.read_text())
    environment = os.environ | {
        "KUBECONFIG": str(config),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
    }
    shell = Shell(folder, environment, namespace)
    shell(f"kubectl create namespace {namespace}")
    shell(f"kubectl config set-context --current --namespace={namespace}")
    shell("kubectl apply -f world.yaml")
    shell("kubectl rollout status deployment/my-service --timeout=60s")
    shell("kubectl wait --for=condition=Ready pod/pod-a --timeout=60s")
    # Ready is the API's word; kube-proxy has its own pace (at most one sync a second, as upstream).
    shell("kubectl exec pod-a -- timeout 20 sh -c 'until curl -s -m 1 http://my-service/hostname; do :; done'")
    yield shell
    shell(f"kubectl delete namespace {namespace} --timeout=60s", timeout=90)


def test_services_wide(shell: Shell) -> None:
    output = shell("kubectl get svc -A -o wide")
    assert re.search(r"NAMESPACE +NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE +SELECTOR", output)
    assert re.search(r"default +kubernetes +ClusterIP +10\.96\.0\.1 +<none> +443/TCP", output)
    assert re.search(r"kube-system +kube-dns +ClusterIP +10\.96\.0\.10 +<none> +53/UDP,53/TCP,9153/TCP", output)


def test_endpoint_slices(shell: Shell) -> None:
    output = shell("kubectl get endpointslices -A")
    assert re.search(r"NAMESPACE +NAME +ADDRESSTYPE +PORTS +ENDPOINTS +AGE", output)
    assert re.search(rf"{shell.namespace} +my-service-\w{{5}} +IPv4 +8080 +10\.244\.\d+\.\d+,10\.244\.\d+\.\d+", output)


def test_pods_wide_through_awk(shell: Shell) -> None:
    output = shell("kubectl get pods -A -o wide | awk '{print $1, $2, $6, $7}'")
    assert output.splitlines()[0] == "NAMESPACE NAME AGE IP"
    assert re.search(rf"{shell.namespace} pod-a \S+ 10\.244\.\d+\.\d+", output)


def test_run_with_a_terminal_resolves_and_removes_itself(shell: Shell) -> None:
    output = shell.on_a_terminal(
        "kubectl run dnstest --image=busybox:1.36 --rm -it -- nslookup kubernetes.default.svc.cluster.local"
    )
    assert "10.96.0.1" in output
    assert 'pod "dnstest" deleted' in output


def said_by_the_service(output: str) -> bool:
    """A line of its own: kubectl sends the terminal's size beside the command, and one that comes to do so only after
    a short command has ended logs that on the same terminal (1.20: "v3.go:79] EOF")."""
    return re.search("^my-service-", output, re.M) is not None


def test_exec_with_a_terminal_reaches_a_pod_by_its_address(shell: Shell) -> None:
    address = shell("kubectl get pod -l app=my-service -o jsonpath='{.items[0].status.podIP}'")
    output = shell.on_a_terminal(f"kubectl exec -it pod-a -- curl -s http://{address}:8080/hostname")
    assert said_by_the_service(output)


def test_exec_with_a_terminal_reaches_a_service_by_its_name(shell: Shell) -> None:
    name = f"my-service.{shell.namespace}.svc.cluster.local"
    output = shell.on_a_terminal(f"kubectl exec -it pod-a -- curl -s http://{name}/hostname")
    assert said_by_the_service(output)


def test_node_pod_ranges_by_jsonpath(shell: Shell) -> None:
    output = shell(
        "kubectl get node -o jsonpath='{range .items[*]}{.metadata.name}: podCIDR={.spec.podCIDR}{\"\\n\"}{end}'"
    )
    lines = output.splitlines()
    assert [line.split(":")[0] for line in lines] == ["control-plane", "worker-1", "worker-2"]
    assert len({line.split("=")[1] for line in lines}) == 3
    assert all(re.fullmatch(r"\S+: podCIDR=10\.244\.\d+\.0/24", line) for line in lines)


def test_a_watch_of_endpoint_slices_shows_a_scaling(shell: Shell) -> None:
    watching = subprocess.Popen(
        ["kubectl", "get", "endpointslices", "-l", "kubernetes.io/service-name=my-service", "-w"],
        env=shell.environment,
        stdout=subprocess.PIPE,
        text=True,
        executable=str(shell.folder / "bin/kubectl"),
    )
    assert watching.stdout is not None
    try:
        watching.stdout.readline()
        first = watching.stdout.readline()
        assert len(re.findall(r"10\.244\.\d+\.\d+", first)) == 2
        shell("kubectl scale deployment/my-service --replicas=3")
        lines = iter(watching.stdout.readline, "")
        assert any(len(re.findall(r"10\.244\.\d+\.\d+", line)) == 3 for line in lines)
    finally:
        watching.kill()
        watching.communicate()
        shell("kubectl scale deployment/my-service --replicas=2")
        shell("kubectl rollout status deployment/my-service --timeout=60s")


def test_rules_of_a_cluster_ip_on_a_node(shell: Shell, running_lab: RunningLab) -> None:
    shell(
        "kubectl apply -f - <<< $'apiVersion: v1\\nkind: Service\\nmetadata: {name: fixed}\\n"
        "spec: {clusterIP: 10.96.0.100, selector: {app: my-service}, ports: [{port: 80, targetPort: 8080}]}'"
    )
    try:
        # Until its EndpointSlice has come too, the Service has a REJECT instead.
        command = ["sh", "-c", 'until iptables-save | grep "10.96.0.100" | grep KUBE-SVC; do :; done']
        done = running_lab.exec("worker-1", command, timeout=20)
        assert re.search(r"-A KUBE-SERVICES -d 10\.96\.0\.100/32 .*-j KUBE-SVC-[A-Z2-7]{16}", done.text)
    finally:
        shell("kubectl delete service fixed")


def test_describe_logs_and_delete(shell: Shell) -> None:
    described = shell("kubectl describe pod pod-a")
    assert re.search(r"Normal +Scheduled .*Successfully assigned", described)
    shell("kubectl run talker --image=busybox:1.36 --restart=Never -- sh -c 'echo one; echo two'")
    phase = "kubectl get pod talker -o jsonpath='{.status.phase}'"
    shell(f"until [ $({phase}) = Succeeded ]; do :; done", timeout=20)
    assert shell("kubectl logs -f --pod-running-timeout=20s talker") == "one\ntwo\n"
    shell("kubectl delete pod talker")
    assert 'pods "talker" not found' in shell("kubectl get pod talker", code=1)


WAITING = """\
apiVersion: v1
kind: Pod
metadata: {name: waiting}
spec:
  terminationGracePeriodSeconds: 0
  initContainers: [{name: first, image: busybox, command: [sleep, "3600"]}]
  containers: [{name: main, image: busybox, command: [sleep, "3600"]}]
"""


def test_a_container_that_has_not_started_has_no_log_and_no_exec(shell: Shell) -> None:
    (shell.folder / "waiting.yaml").write_text(WAITING)
    shell("kubectl apply -f waiting.yaml")
    try:
        started = "kubectl get pod waiting -o jsonpath='{.status.initContainerStatuses[0].state.running}'"
        shell(f'until [ -n "$({started})" ]; do :; done', timeout=20)
        said = shell("kubectl logs waiting -c main", code=1)
        text = 'container "main" in pod "waiting" is waiting to start: PodInitializing'
        assert said == f"Error from server (BadRequest): {text}\n"
        said = shell("kubectl exec waiting -c main -- ls", code=1)
        assert said.endswith('unable to upgrade connection: container not found ("main")\n')
    finally:
        shell("kubectl delete pod waiting")


def test_run_with_a_terminal_ends_with_the_commands_exit_code(shell: Shell) -> None:
    script = (
        "kubectl run failing --image=busybox:1.36 --restart=Never --rm -it -- sh -c 'sleep 1; stty size; exit 3'; "
        "[ $? = 3 ]"
    )
    output = shell.on_a_terminal(f"stty rows 40 cols 120; {script}")
    assert "40 120" in output
    assert "couldn't attach" not in output


def test_debug_adds_a_container_that_shares_the_pods_network_and_processes(shell: Shell) -> None:
    if "v1.20" in shell("kubectl version --client 2>&1 || true"):
        pytest.skip("this kubectl speaks the alpha version of ephemeral containers")
    shell("kubectl run debugged --image=busybox:1.36 -- sleep 4321")
    shell("kubectl wait --for=condition=Ready pod/debugged --timeout=60s")
    try:
        script = "sleep 1; ps; ip -4 -o addr show eth0; exit"
        output = shell.on_a_terminal(
            f"kubectl debug -it debugged --image=busybox:1.36 --target=debugged -c dbg -- sh -c '{script}'"
        )
        assert "sleep 4321" in output
        assert shell("kubectl get pod debugged -o jsonpath='{.status.podIP}'") in output
        reason = "{.status.ephemeralContainerStatuses[0].state.terminated.reason}"
        shell(f"kubectl wait --for=jsonpath='{reason}'=Completed pod/debugged --timeout=60s")
    finally:
        shell("kubectl delete pod debugged --grace-period=1")


def test_stateful_identity_of_the_basic_tutorial(shell: Shell) -> None:
    shell("kubectl create service clusterip nginx --clusterip=None --tcp=80")
    shell(
        "kubectl create -f - <<< $'apiVersion: apps/v1\\nkind: StatefulSet\\nmetadata: {name: web}\\n"
        "spec: {serviceName: nginx, replicas: 2, selector: {matchLabels: {app: nginx}}, template: "
        "{metadata: {labels: {app: nginx}}, spec: {containers: [{name: nginx, image: nginx}]}}}'"
    )
    try:
        shell("kubectl rollout status statefulset/web --timeout=30s")
        for ordinal in (0, 1):
            address = shell(f"kubectl get pod web-{ordinal} -o jsonpath='{{.status.podIP}}'")
            lookup = f"until nslookup web-{ordinal}.nginx.{shell.namespace}.svc.cluster.local; do :; done"
            assert address in shell(f"kubectl exec pod-a -- timeout 10 sh -c '{lookup}'")
    finally:
        shell("kubectl delete statefulset/web service/nginx")


def test_an_exit_code_comes_back_through_exec(shell: Shell) -> None:
    assert "command terminated with exit code 42" in shell("kubectl exec pod-a -- sh -c 'exit 42'", code=42)


def test_stdin_goes_through_exec_unchanged(shell: Shell) -> None:
    output = shell("head -c 300000 /dev/zero | kubectl exec -i pod-a -- sh -c 'wc -c'")
    assert output.strip() == "300000"


def test_apply_is_idempotent_and_an_unknown_field_is_an_error(shell: Shell) -> None:
    assert "my-service unchanged" in shell("kubectl apply -f world.yaml")
    wrong = WORLD.split("---")[1].replace("selector:", "selektor:")
    (shell.folder / "wrong.yaml").write_text(wrong)
    assert re.search(r'unknown field "(spec\.)?selektor"', shell("kubectl apply -f wrong.yaml", code=1))


def test_the_api_says_what_is_wrong_as_upstream_does(shell: Shell) -> None:
    output = shell(
        "kubectl create -f - <<< $'apiVersion: v1\\nkind: Service\\nmetadata: {name: a}\\n"
        "spec: {type: NodePort, ports: [{port: 80, nodePort: 80}]}'",
        code=1,
    )
    assert (
        'The Service "a" is invalid: spec.ports[0].nodePort: Invalid value: 80: '
        "provided port is not in the valid range. The range of valid ports is 30000-32767" in output
    )
