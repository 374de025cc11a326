"""The modes of --authorization-mode, and their union."""

from __future__ import annotations

from dataclasses import dataclass

from kubewire.components.apiserver.access.attributes import (
    Attributes,
    Authorizer,
    Decision,
    Rules,
)
from kubewire.components.apiserver.access.nodes import NodeAuthorizer
from kubewire.components.apiserver.access.policy import node_rules
from kubewire.components.apiserver.access.rbac import RbacAuthorizer
from kubewire.components.apiserver.kinds.rules import EVERYTHING
from kubewire.components.apiserver.store import Store
from kubewire.components.apiserver.users import MASTERS, User

ALWAYS_ALLOW = "AlwaysAllow"
ALWAYS_DENY = "AlwaysDeny"
NODE = "Node"
RBAC = "RBAC"
_ALLOWED = Decision(True)
MODES = (ALWAYS_ALLOW, ALWAYS_DENY, NODE, RBAC)


class AlwaysAllow:
    """Every request is allowed."""

    def decide(self, attributes: Attributes) -> Decision:
        return _ALLOWED

    def rules_for(self, user: User, namespace: str) -> Rules:
        return Rules(EVERYTHING)


class AlwaysDeny:
    """No request is allowed."""

    def decide(self, attributes: Attributes) -> Decision:
        return Decision(False, "Everything is forbidden.")

    def rules_for(self, user: User, namespace: str) -> Rules:
        return Rules()


@dataclass(frozen=True)
class Union:
    """Allows what one of its authorizers allows, and everything to system:masters."""

    authorizers: tuple[Authorizer, ...]
    rbac: RbacAuthorizer

    def decide(self, attributes: Attributes) -> Decision:
        if MASTERS in attributes.user.groups:
            return _ALLOWED
        reasons = []
        for authorizer in self.authorizers:
            decision = authorizer.decide(attributes)
            if decision.allowed:
                return decision
            if decision.reason:
                reasons.append(decision.reason)
        return Decision(False, "\n".join(reasons))

    def explain(self, attributes: Attributes) -> Decision:
        """The decision with its reason, for a SubjectAccessReview."""
        decision = self.decide(attributes)
        uses_rbac = self.rbac in self.authorizers and MASTERS not in attributes.user.groups
        if decision.allowed and uses_rbac:
            by_binding = self.rbac.explain(attributes)
            return by_binding if by_binding.allowed else decision
        return decision

    def rules_for(self, user: User, namespace: str) -> Rules:
        parts = [authorizer.rules_for(user, namespace) for authorizer in self.authorizers]
        return Rules(
            tuple(rule for part in parts for rule in part.rules),
            tuple(problem for part in parts for problem in part.problems),
            any(part.incomplete for part in parts),
        )


def authorizers(modes: tuple[str, ...], store: Store) -> Union:
    """The authorizers of --authorization-mode, asked in this order."""
    rbac = RbacAuthorizer(store)
    made: dict[str, Authorizer] = {RBAC: rbac}
    for mode in modes:
        if mode == NODE:
            made[mode] = NodeAuthorizer(store, node_rules())
        elif mode == ALWAYS_ALLOW:
            made[mode] = AlwaysAllow()
        elif mode == ALWAYS_DENY:
            made[mode] = AlwaysDeny()
    return Union(tuple(made[mode] for mode in modes), rbac)
