"""Nobody may give rights that they do not have (pkg/registry/rbac, policybased).

Upstream checks this in the registry of roles and bindings, after mutating admission. Who may
"escalate" a role or "bind" it is exempt, as is system:masters.
"""

from __future__ import annotations

from kubewire.components.apiserver import status
from kubewire.components.apiserver.access import attributes as access
from kubewire.components.apiserver.access.attributes import quoted
from kubewire.components.apiserver.access.modes import Union
from kubewire.components.apiserver.access.rbac import RoleNotFound
from kubewire.components.apiserver.kinds import rules
from kubewire.components.apiserver.kinds.rules import EVERYTHING, Rule
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.catalog import Served
from kubewire.components.apiserver.store import Store
from kubewire.components.apiserver.users import MASTERS
from kubewire.components.kubeapi.resources import KubeObject

_GROUP = "rbac.authorization.k8s.io"
_ROLES = frozenset({f"roles.{_GROUP}", f"clusterroles.{_GROUP}"})
_BINDINGS = frozenset({f"rolebindings.{_GROUP}", f"clusterrolebindings.{_GROUP}"})
#: Metadata that the garbage collector changes.
_COLLECTED = ("finalizers", "ownerReferences", "resourceVersion", "managedFields")


class RoleEscalation(Plugin):
    name = "RoleEscalation"

    def __init__(self, store: Store, authorizer: Union) -> None:
        super().__init__(store)
        self._authorizer = authorizer

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return served.storage in _ROLES | _BINDINGS and operation in ("CREATE", "UPDATE")

    def admit(self, attributes: Attributes) -> None:
        if MASTERS in attributes.user.groups:
            return
        self.store.owner.call(self._check, attributes)

    def _check(self, attributes: Attributes) -> None:
        if attributes.served.storage in _ROLES:
            self._check_role(attributes)
        else:
            self._check_binding(attributes)

    def _check_role(self, attributes: Attributes) -> None:
        served = attributes.served
        name = attributes.name if attributes.old else ""
        if self._may(attributes, "escalate", served.plural, name):
            return
        new, old = attributes.obj, attributes.old
        if old and all(new.get(key) == old.get(key) for key in ("rules", "aggregationRule")):
            return
        self._confirm(attributes, rules.parse(new))
        if new.get("aggregationRule") or old.get("aggregationRule"):
            why = "must have cluster-admin privileges to use the aggregationRule"
            if self._lacking(attributes, EVERYTHING):
                raise _forbidden(attributes, why)

    def _check_binding(self, attributes: Attributes) -> None:
        new, old = attributes.obj, attributes.old
        if old and _as_collected(new) == _as_collected(old):
            return
        reference = new.get("roleRef") or {}
        plural = "roles" if reference.get("kind") == "Role" else "clusterroles"
        if self._may(attributes, "bind", plural, reference.get("name", "")):
            return
        try:
            granted = self._authorizer.rbac.role_rules(reference, attributes.namespace)
        except RoleNotFound as error:
            raise status.not_found(_GROUP, plural, reference.get("name", "")) from error
        self._confirm(attributes, granted)

    def _may(self, attributes: Attributes, verb: str, plural: str, name: str) -> bool:
        asked = access.Attributes(
            attributes.user,
            verb,
            _GROUP,
            "*",
            plural,
            namespace=attributes.namespace,
            name=name,
        )
        return self._authorizer.decide(asked).allowed

    def _lacking(self, attributes: Attributes, wanted: tuple[Rule, ...]) -> list[Rule]:
        held = self._authorizer.rbac.rules_for(attributes.user, attributes.namespace)
        return rules.missing(held.rules, wanted)

    def _confirm(self, attributes: Attributes, wanted: tuple[Rule, ...]) -> None:
        lacking = self._lacking(attributes, wanted)
        if not lacking:
            return
        user = attributes.user
        groups = " ".join(quoted(group) for group in user.groups)
        why = f"user {quoted(user.name)} (groups=[{groups}]) is attempting to grant RBAC "
        why += "permissions not currently held:\n" + "\n".join(map(str, lacking))
        raise _forbidden(attributes, why)


def _forbidden(attributes: Attributes, why: str) -> status.StatusError:
    served = attributes.served
    return status.forbidden(served.group, served.plural, attributes.name, why)


def _as_collected(obj: KubeObject) -> KubeObject:
    kept = {key: value for key, value in obj["metadata"].items() if key not in _COLLECTED}
    return obj | {"metadata": kept}
