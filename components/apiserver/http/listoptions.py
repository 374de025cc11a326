"""metav1.ListOptions of a list or watch, decoded and checked as apimachinery's ValidateListOptions
does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kubewire.components.apiserver import status
from kubewire.components.apiserver.http.requestinfo import flag
from kubewire.components.apiserver.kinds.spec import FieldError
from kubewire.components.apiserver.query import integer


@dataclass(frozen=True)
class ListOptions:
    """The options of a list or watch.

    initial_events is None and timeout, in seconds, is 0 when the request does not set them.
    """

    resource_version: str = ""
    match: str = ""
    limit: int = 0
    continue_token: str = ""
    initial_events: bool | None = None
    bookmarks: bool = False
    timeout: int = 0

    @classmethod
    def parse(cls, query: Mapping[str, str], *, watching: bool) -> ListOptions:
        """Decodes the query; raises 400 and 422."""
        initial = query.get("sendInitialEvents")
        options = cls(
            query.get("resourceVersion", ""),
            query.get("resourceVersionMatch", ""),
            integer(query, "limit"),
            query.get("continue", ""),
            None if initial is None else flag(initial),
            flag(query.get("allowWatchBookmarks")),
            integer(query, "timeoutSeconds"),
        )
        if errors := options.watch_errors() if watching else options.list_errors():
            raise status.invalid("meta.k8s.io", "ListOptions", "", errors)
        return options

    @property
    def exact(self) -> bool:
        """Whether the list is of one exact resourceVersion.

        resourceVersionMatch=Exact asks for that, and so does its older form: a limit with a
        resourceVersion.
        """
        if self.match:
            return self.match == "Exact"
        return self.limit > 0 and self.resource_version not in ("", "0")

    def list_errors(self) -> list[FieldError]:
        errors = []
        if self.match:
            if not self.resource_version:
                text = "resourceVersionMatch is forbidden unless resourceVersion is provided"
                errors.append(_forbidden(text))
            errors += self._continue_errors()
            if self.match not in ("Exact", "NotOlderThan"):
                errors.append(
                    _unsupported(self.match, 'supported values: "Exact", "NotOlderThan", ""'),
                )
            if self.match == "Exact" and self.resource_version == "0":
                text = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
                errors.append(_forbidden(text))
        if self.initial_events is not None:
            text = "sendInitialEvents is forbidden for list"
            errors.append(FieldError("Forbidden", "sendInitialEvents", "", text))
        return errors

    def watch_errors(self) -> list[FieldError]:
        errors = []
        if self.initial_events is not None and self.match != "NotOlderThan":
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            errors.append(_forbidden(text))
        if self.match:
            if self.initial_events is None:
                text = "resourceVersionMatch is forbidden for watch"
                text += " unless sendInitialEvents is provided"
                errors.append(_forbidden(text))
            if self.match != "NotOlderThan":
                errors.append(_unsupported(self.match, 'supported values: "NotOlderThan"'))
            errors += self._continue_errors()
        return errors

    def _continue_errors(self) -> list[FieldError]:
        if not self.continue_token:
            return []
        return [_forbidden("resourceVersionMatch is forbidden when continue is provided")]


def _forbidden(text: str) -> FieldError:
    return FieldError("Forbidden", "resourceVersionMatch", "", text)


def _unsupported(value: str, text: str) -> FieldError:
    return FieldError("NotSupported", "resourceVersionMatch", value, text)
