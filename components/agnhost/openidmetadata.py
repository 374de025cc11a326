"""agnhost test-service-account-issuer-discovery: verifies a token as a stranger would do.

It reads the issuer from the token, the keys from the issuer's discovery documents (OpenID Connect
Discovery 1.0), and checks signature, issuer, audience and time (openidmetadata.go).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .flags import Flag, parse
from .golang import fatal, log
from .incluster import ACCOUNT, fetch, trusted

FLAGS = (
    Flag("token-path", "", "Path to read service account token from."),
    Flag("audience", "", "Audience to check on received token."),
)
Fetch = Callable[[str], bytes]


class InvalidToken(Exception):
    """The token is not what its issuer's keys and the audience demand."""


def main(argv: list[str]) -> int:
    """Returns 0 for a valid token. Raises SystemExit(1) otherwise."""
    values, _ = parse("test-service-account-issuer-discovery", FLAGS, argv)
    try:
        token = Path(str(values["token-path"])).read_text().strip()
    except OSError as error:
        raise fatal(f"open {values['token-path']}: {(error.strerror or '').lower()}") from None
    log("OK: Got token")
    log("validating with in-cluster discovery")
    own = (ACCOUNT / "token").read_text().strip()
    context = trusted()
    try:
        validate(token, str(values["audience"]), lambda url: fetch(url, context, own))
        return 0
    except (InvalidToken, OSError, ValueError, KeyError) as error:
        log(f"failed to validate with in-cluster discovery: {error}")
    # The issuer may be outside of the cluster; it does not get this pod's own token.
    log("falling back to validating with external discovery")
    import ssl

    outside = ssl.create_default_context()
    try:
        validate(token, str(values["audience"]), lambda url: fetch(url, outside))
    except (InvalidToken, OSError, ValueError, KeyError) as error:
        raise fatal(str(error)) from None
    return 0


def validate(token: str, audience: str, get: Fetch, now: float | None = None) -> None:
    """Raises InvalidToken; OSError, ValueError or KeyError for documents that are not there or not
    as they must be."""
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken("oidc: malformed jwt")
    head, claims = (json.loads(_decoded(part)) for part in parts[:2])
    issuer = claims["iss"]
    log(f"OK: got issuer {issuer}")
    log(f"Full, not-validated claims: \n{claims}")
    found = json.loads(get(f"{issuer.rstrip('/')}/.well-known/openid-configuration"))
    if found["issuer"] != issuer:
        raise InvalidToken(f"oidc: issuer did not match, expected {issuer} got {found['issuer']}")
    log(f"OK: Constructed OIDC provider for issuer {issuer}")
    keys = json.loads(get(found["jwks_uri"]))["keys"]
    signed = f"{parts[0]}.{parts[1]}".encode()
    if not any(_is_signed_by(key, head, signed, _decoded(parts[2])) for key in keys):
        raise InvalidToken("failed to verify signature: failed to verify id token signature")
    log("OK: Validated signature on JWT")
    _check_claims(claims, audience, time.time() if now is None else now)
    log("OK: Got valid claims from token!")
    log(f"Full, validated claims: \n{claims}")


def _check_claims(claims: Mapping[str, Any], audience: str, now: float) -> None:
    named = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if audience not in named:
        raise InvalidToken(f"oidc: expected audience {json.dumps(audience)} got {named}")
    if claims["exp"] < now:
        raise InvalidToken("oidc: token is expired")


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _is_signed_by(
    key: Mapping[str, Any], head: Mapping[str, Any], signed: bytes, signature: bytes
) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    if head.get("kid") not in (None, key.get("kid")):
        return False

    def number(name: str) -> int:
        return int.from_bytes(_decoded(key[name]), "big")

    try:
        if (key["kty"], head["alg"]) == ("RSA", "RS256"):
            public = rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
            public.verify(signature, signed, padding.PKCS1v15(), SHA256())
        elif (key["kty"], head["alg"]) == ("EC", "ES256"):
            curve = ec.EllipticCurvePublicNumbers(number("x"), number("y"), ec.SECP256R1())
            halves = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
            curve.public_key().verify(encode_dss_signature(*halves), signed, ec.ECDSA(SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True
