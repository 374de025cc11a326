"""Service account tokens: JWTs that the API server signs and verifies.

A token is bound to the objects for which it was requested, and is valid only while they exist
(https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/).
"""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

_CACHE_LIMIT = 4096

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class TokenError(Exception):
    """The token does not authenticate a user."""


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key_id(key: PublicKey) -> str:
    """The kid of a key: base64url of the SHA-256 of its DER, as upstream derives it."""
    der = key.public_bytes(
        serialization.Encoding.DER,
        serialization.PublicFormat.SubjectPublicKeyInfo,
    )
    return _encode(hashlib.sha256(der).digest())


def load_private_key(path: str) -> PrivateKey:
    key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path}: neither an RSA nor an EC key")
    return key


def load_public_key(path: str) -> PublicKey:
    """Reads a public key, or the public part of a private key.

    --service-account-key-file accepts both.
    """
    data = Path(path).read_bytes()
    if b"PRIVATE KEY" in data:
        return load_private_key(path).public_key()
    key = serialization.load_pem_public_key(data)
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ValueError(f"{path}: neither an RSA nor an EC key")
    return key


def _sign(key: PrivateKey, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    size = (key.curve.key_size + 7) // 8
    r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def _check(key: PublicKey, signature: bytes, data: bytes) -> None:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        else:
            half = len(signature) // 2
            r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise TokenError("signature does not verify") from error


@dataclass(frozen=True)
class ServiceAccountTokens:
    """Signs with one key and verifies with several.

    alive(claims) says whether the objects to which a token is bound still exist with the same uid.
    Keys are read from their files on first use, so that they do not delay the start.
    """

    issuer: str
    audiences: tuple[str, ...]
    signing_key_file: str
    public_key_files: tuple[str, ...]
    alive: Callable[[Mapping[str, Any]], bool]

    @cached_property
    def _signing(self) -> PrivateKey:
        return load_private_key(self.signing_key_file)

    @cached_property
    def public_keys(self) -> dict[str, PublicKey]:
        keys = [load_public_key(path) for path in self.public_key_files]
        if not keys and self.signing_key_file:
            keys = [self._signing.public_key()]
        return {key_id(key): key for key in keys}

    @cached_property
    def _verified(self) -> dict[str, dict[str, Any]]:
        return {}

    def issue(
        self, claims: Mapping[str, Any], subject: str, audiences: tuple[str, ...], seconds: int
    ) -> tuple[str, int]:
        """Returns a signed token and its expiry in Unix seconds; claims is the kubernetes.io
        claim.
        """
        now = int(time.time())
        header = {"alg": self._algorithm, "kid": key_id(self._signing.public_key())}
        payload = {
            "aud": list(audiences or self.audiences),
            "exp": now + seconds,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": claims,
            "nbf": now,
            "sub": subject,
        }
        text = f"{_encode(orjson.dumps(header))}.{_encode(orjson.dumps(payload))}"
        return f"{text}.{_encode(_sign(self._signing, text.encode()))}", now + seconds

    @property
    def _algorithm(self) -> str:
        return "RS256" if isinstance(self._signing, rsa.RSAPrivateKey) else "ES256"

    def verify(self, token: str, audiences: tuple[str, ...] = ()) -> dict[str, Any]:
        """Returns the claims of a token that is valid for one of the audiences.

        The default audiences are the API server's. Raises TokenError.
        """
        claims = self._verified.get(token)
        if claims is None:
            claims = self._checked_claims(token)
            if len(self._verified) >= _CACHE_LIMIT:
                self._verified.clear()
            self._verified[token] = claims
        if not claims["nbf"] <= time.time() + 1 or time.time() >= claims["exp"]:
            raise TokenError("token has expired or is not valid yet")
        if not set(claims["aud"]) & set(audiences or self.audiences):
            raise TokenError("token audiences do not fit")
        if not self.alive(claims):
            raise TokenError("what the token is bound to is gone")
        return claims

    def _checked_claims(self, token: str) -> dict[str, Any]:
        try:
            head, payload, signature = token.split(".")
            header = orjson.loads(_decode(head))
            claims = orjson.loads(_decode(payload))
            raw_signature = _decode(signature)
            key = self.public_keys.get(header.get("kid"))
        except (ValueError, AttributeError) as error:
            raise TokenError("not a JWT") from error
        if key is None or header.get("alg") not in ("RS256", "ES256"):
            raise TokenError("signed by an unknown key")
        _check(key, raw_signature, f"{head}.{payload}".encode())
        if claims.get("iss") != self.issuer or "kubernetes.io" not in claims:
            raise TokenError("issued by another issuer")
        return dict(claims)

    def jwks(self) -> dict[str, Any]:
        """The document /openid/v1/jwks."""
        return {"keys": [_jwk(name, key) for name, key in self.public_keys.items()]}


def _jwk(name: str, key: PublicKey) -> dict[str, Any]:
    def number(value: int) -> str:
        return _encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))

    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {
            "use": "sig",
            "kty": "RSA",
            "kid": name,
            "alg": "RS256",
            "n": number(numbers.n),
            "e": number(numbers.e),
        }
    point = key.public_numbers()
    return {
        "use": "sig",
        "kty": "EC",
        "kid": name,
        "alg": "ES256",
        "crv": "P-256",
        "x": number(point.x),
        "y": number(point.y),
    }
