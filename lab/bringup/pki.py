"""Makes the cluster's certificates and keys, as kubeadm lays them out
(https://kubernetes.io/docs/setup/best-practices/certificates/).

Every client of the API server proves who it is with a client certificate: the common name is the
user, each organization a group
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/). All of them are signed by
one authority per cluster. The keys are ECDSA P-256, because these are made within milliseconds, and
RSA keys are not.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, in PEM (the key in PKCS 8)."""

    certificate: bytes
    key: bytes


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text) for text in organizations]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """A certificate authority; the cluster's is "kubernetes", and kubeadm's other one, for servers
    behind the aggregation layer, is "front-proxy-ca"."""

    def __init__(self, name: str = "kubernetes") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=True,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)
        self.key = _pem(self._key)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # The clocks of a virtual machine and its host may differ a little.
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + _LIFETIME)
        )

    def _issue(
        self,
        builder: x509.CertificateBuilder,
        key: ec.EllipticCurvePrivateKey,
        purpose: x509.ObjectIdentifier,
    ) -> Pair:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))

    def server(self, common_name: str, names: Sequence[str]) -> Pair:
        """Issue a serving certificate for DNS names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(common_name), key)
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        return self._issue(
            builder.add_extension(alternatives, critical=False),
            key,
            ExtendedKeyUsageOID.SERVER_AUTH,
        )

    def client(self, user: str, groups: Sequence[str] = ()) -> Pair:
        """Issue a client certificate; CN is the user, and O are its groups."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._issue(
            self._builder(_name(user, groups), key),
            key,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        )


def signing_key() -> tuple[bytes, bytes]:
    """Make a key for signing service account tokens (ES256); returns (private, public) in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return _pem(key), key.public_key().public_bytes(serialization.Encoding.PEM, form)
