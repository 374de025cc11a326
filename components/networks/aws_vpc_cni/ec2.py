"""A client for the calls of EC2's API and of the instance metadata that ipamd makes
(pkg/awsutils/awsutils.go)."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

ENDPOINT = "http://169.254.169.254"
_SECONDS = 10.0


class Ec2Error(Exception):
    """EC2 refused the call; code is EC2's, or "" if EC2 did not answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code


class Ec2:
    """All methods raise Ec2Error."""

    def __init__(self, endpoint: str = ENDPOINT) -> None:
        self._endpoint = endpoint

    async def metadata(self, path: str) -> str:
        return await asyncio.to_thread(self._get, f"/latest/meta-data/{path}")

    async def call(self, action: str, **parameters: object) -> dict[str, Any]:
        given = {
            "Action": action,
            **{key.replace("__", "."): str(value) for key, value in parameters.items()},
        }
        answer: dict[str, Any] = json.loads(
            await asyncio.to_thread(self._get, f"/?{urlencode(given)}"),
        )
        return answer

    def _get(self, path: str) -> str:
        try:
            with urlopen(self._endpoint + path, timeout=_SECONDS) as answer:
                text: str = answer.read().decode()
                return text
        except HTTPError as error:
            body = error.read().decode(errors="replace")
            try:
                refusal = json.loads(body)["Error"]
            except (ValueError, KeyError):
                raise Ec2Error(str(error.code), body or error.reason) from None
            raise Ec2Error(refusal["Code"], refusal["Message"]) from None
        except (URLError, OSError) as error:
            raise Ec2Error("", f"{self._endpoint}: {error}") from None
