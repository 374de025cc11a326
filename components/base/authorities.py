"""Importing aiohttp without the machine's certificate authorities."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Where OpenSSL looks before its built-in paths (SSL_CTX_set_default_verify_paths(3)).
_PLACES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@contextmanager
def without_authorities() -> Iterator[None]:
    """In this context, new TLS contexts trust none of the machine's certificate authorities.

    aiohttp makes two TLS contexts when it is imported and loads some 140 certificates into each,
    which takes 30 ms of CPU time each. A lab trusts only its own authority, so nothing uses them.
    """
    before = {name: os.environ.get(name) for name in _PLACES}
    os.environ.update(dict.fromkeys(_PLACES, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
