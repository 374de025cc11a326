"""ResourceQuota: a namespace uses no more than its quotas allow
(apiserver/pkg/admission/plugin/resourcequota).

What a request uses is added to status.used in the same step in which it is compared, so that two
requests cannot both take the last of it. It stays there when the request fails afterwards; the
controllers count again.
"""

from __future__ import annotations

from collections.abc import Mapping

from kubewire.components.apiserver import status
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Stored
from kubewire.components.kubeapi import quotas
from kubewire.components.kubeapi.amounts import Amount, Amounts, added, parsed, shown
from kubewire.components.kubeapi.resources import KubeObject

_STORAGE = "resourcequotas"
#: Resources of which an update can use more.
_GROWING = frozenset({quotas.SERVICES, quotas.CLAIMS})


class ResourceQuota(Plugin):
    name = "ResourceQuota"

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        if subresource or not served.namespaced:
            return False
        return operation == "CREATE" or (operation == "UPDATE" and served.storage in _GROWING)

    def validate(self, attributes: Attributes) -> None:
        if self.store.count(_STORAGE):
            self.store.owner.call(self._take, attributes)

    def _take(self, attributes: Attributes) -> None:
        """Compares with every quota before anything is written to one of them."""
        resource = attributes.served.storage
        used = quotas.usage(resource, attributes.obj)
        if attributes.operation == "UPDATE":
            used = _difference(used, quotas.usage(resource, attributes.old))
        writes = []
        for stored in self._quotas(attributes):
            hard = parsed((stored.obj.get("status") or {}).get("hard") or {})
            own = [name for name in hard if quotas.resource_of(name) == resource]
            _check_known(attributes, stored, own)
            if resource == quotas.PODS:
                _check_named(attributes, stored, own)
            taken = {name: used[name] for name in own if name in used and used[name].value}
            if taken:
                writes.append((stored, self._with(attributes, stored, hard, taken)))
        if attributes.dry_run:
            return
        for stored, quota in writes:
            self.store.update(stored.key, quota, stored.revision)

    def _quotas(self, attributes: Attributes) -> list[Stored]:
        resource = attributes.served.storage
        return [
            stored
            for stored in self.store.items(_STORAGE)
            if stored.key.namespace == attributes.namespace
            and quotas.matches(stored.obj, resource, attributes.obj)
        ]

    def _with(
        self, attributes: Attributes, stored: Stored, hard: Amounts, taken: Amounts
    ) -> KubeObject:
        quota = stored.copy()
        before = parsed(quota["status"].get("used") or {})
        after = added(before, taken)
        exceeded = [
            name for name in taken if after[name].value > hard[name].value and taken[name].value > 0
        ]
        if exceeded:
            why = f"exceeded quota: {stored.key.name}, requested: {_text(taken, exceeded)}"
            why += f", used: {_text(before, exceeded)}, limited: {_text(hard, exceeded)}"
            raise _forbidden(attributes, why)
        quota["status"]["used"] = shown(after)
        return quota


def _check_known(attributes: Attributes, stored: Stored, own: list[str]) -> None:
    used = (stored.obj.get("status") or {}).get("used") or {}
    unknown = sorted(name for name in own if name not in used)
    if unknown:
        text = f"status unknown for quota: {stored.key.name}, resources: {','.join(unknown)}"
        raise _forbidden(attributes, text)


def _check_named(attributes: Attributes, stored: Stored, own: list[str]) -> None:
    if missing := quotas.missing(attributes.obj, own):
        raise _forbidden(attributes, f"failed quota: {stored.key.name}: must specify {missing}")


def _difference(new: Mapping[str, Amount], old: Mapping[str, Amount]) -> Amounts:
    zero = Amount()
    return {name: new.get(name, zero) - old.get(name, zero) for name in {*new, *old}}


def _text(amounts: Mapping[str, Amount], names: list[str]) -> str:
    return ",".join(f"{name}={amounts.get(name, Amount())}" for name in sorted(names))


def _forbidden(attributes: Attributes, why: str) -> status.StatusError:
    served = attributes.served
    return status.forbidden(served.group, served.plural, attributes.name, why)
