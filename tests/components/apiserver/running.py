"""A real API server on 127.0.0.1 for tests: own certificates, own store, a subprocess that can be killed."""

from __future__ import annotations

import datetime
import ipaddress
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubewire.components.kubeapi.kubeconfig import Credentials, dump

CHECKOUT = Path(__file__).resolve().parents[3]
_READY_SECONDS = 20.0


@dataclass(frozen=True)
class Issued:
    """PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A CA in a directory; issue() makes client and server certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubewire-test-ca")])
        builder = self._builder(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = folder / "ca.crt"
        self.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def issue(
        self, name: str, *, groups: tuple[str, ...] = (), addresses: tuple[str, ...] = (), hosts: tuple[str, ...] = ()
    ) -> Issued:
        """A certificate for clients (name, groups) and servers (addresses, hosts, localhost) alike."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        subject += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
        names += [x509.DNSName(host) for host in ("localhost", *hosts)]
        certificate = (
            self._builder(x509.Name(subject), key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        stem = name.replace(":", "-")
        issued = Issued(self.folder / f"{stem}.crt", self.folder / f"{stem}.key")
        issued.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_key(issued.key, key)
        return issued


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(pem)


class RunningApiServer:
    """`with RunningApiServer() as server:` starts one and waits until it is ready.

    server.kubeconfig (system:masters), server.url, server.kubeconfig_for(user, groups), server.restart(),
    server.kill() (SIGKILL), server.stop() (SIGTERM), server.log(). The listening socket belongs to the test, so
    the port stays the same, and connections wait in the backlog, while the server is down. address: under which clients
    reach it, those in other network namespaces too when it is not the loopback's."""

    def __init__(self, *extra_flags: str, address: str = "127.0.0.1") -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="kubewire-apiserver-")
        self.folder = Path(self._temporary.name)
        self._flags = extra_flags
        self._socket = socket.socket()
        self._socket.bind((address if address == "127.0.0.1" else "", 0))
        self._socket.listen(1024)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"https://{address}:{self.port}"
        self.authority = Authority(self.folder)
        self._serving = self.authority.issue("kube-apiserver", addresses=("127.0.0.1", address))
        self.kubelet_client = self.authority.issue("kube-apiserver-kubelet-client", groups=("system:masters",))
        self.front_proxy = self.authority.issue("front-proxy-client")
        self.service_account_key = self.folder / "sa.key"
        write_key(self.service_account_key, ec.generate_private_key(ec.SECP256R1()))
        self.kubeconfig = self.kubeconfig_for("kubernetes-admin", "system:masters")
        self._process: subprocess.Popen[bytes] | None = None

    def kubeconfig_for(self, user: str, *groups: str) -> Path:
        """A kubeconfig file with a client certificate for this user."""
        issued = self.authority.issue(user, groups=groups)
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        credentials = Credentials(
            server=self.url,
            ca=self.authority.certificate.read_bytes(),
            certificate=issued.certificate.read_bytes(),
            key=issued.key.read_bytes(),
        )
        path.touch(mode=0o600)
        path.write_text(dump("test", credentials, user))
        return path

    def argv(self) -> list[str]:
        return [
            sys.executable, "-m", "kubewire.components.apiserver",
            "--secure-port", "0",
            "--listen-fd", str(self._socket.fileno()),
            "--advertise-address", "172.18.0.2",
            "--tls-cert-file", str(self._serving.certificate),
            "--tls-private-key-file", str(self._serving.key),
            "--client-ca-file", str(self.authority.certificate),
            "--service-account-signing-key-file", str(self.service_account_key),
            "--service-account-key-file", str(self.service_account_key),
            "--kubelet-client-certificate", str(self.kubelet_client.certificate),
            "--kubelet-client-key", str(self.kubelet_client.key),
            "--kubelet-certificate-authority", str(self.authority.certificate),
            "--proxy-client-cert-file", str(self.front_proxy.certificate),
            "--proxy-client-key-file", str(self.front_proxy.key),
            "--requestheader-client-ca-file", str(self.authority.certificate),
            "--requestheader-allowed-names", "front-proxy-client",
            "--requestheader-username-headers", "X-Remote-User",
            "--requestheader-group-headers", "X-Remote-Group",
            "--requestheader-extra-headers-prefix", "X-Remote-Extra-",
            "--storage-path", str(self.folder / "store.db"),
            "--authorization-mode", "Node,RBAC",
            *self._flags,
        ]  # fmt: skip

    def start(self) -> None:
        """Returns when /readyz answers. Raises AssertionError with the log when it does not."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Returns at once."""
        with (self.folder / "apiserver.log").open("ab") as output:
            self._process = subprocess.Popen(
                self.argv(),
                cwd=CHECKOUT,
                pass_fds=(self._socket.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def wait_ready(self) -> None:
        """Raises AssertionError with the log when the server ends or is not ready in time."""
        assert self._process is not None
        deadline = time.monotonic() + _READY_SECONDS
        while not self._ready():
            assert self._process.poll() is None, f"the API server ended: {self.log()}"
            assert time.monotonic() < deadline, f"the API server is not ready: {self.log()}"
            time.sleep(0.01)

    def _ready(self) -> bool:
        import http.client
        import ssl

        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=context)
        try:
            connection.request("GET", "/readyz")
            # Without authorization, nobody may do anything without credentials.
            return connection.getresponse().status in (200, 401)
        except OSError:
            return False
        finally:
            connection.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        return self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.kill()
        self.start()

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(timeout=10)
        self._process = None
        return code

    def log(self) -> str:
        return (self.folder / "apiserver.log").read_text()

    def __enter__(self) -> RunningApiServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._socket.close()
        self._temporary.cleanup()
