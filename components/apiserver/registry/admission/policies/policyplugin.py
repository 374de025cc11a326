"""What both admission plugins of policies share: which requests their policies may concern."""

from __future__ import annotations

from kubewire.components.apiserver.cel.authorization import Decide
from kubewire.components.apiserver.registry.admission.plugin import Operation, Plugin
from kubewire.components.apiserver.registry.admission.policies.definitions import Policies
from kubewire.components.apiserver.registry.admission.policies.matching import Matcher
from kubewire.components.apiserver.registry.admission.webhooks.rules import Resource
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.store import Store


class PolicyPlugin(Plugin):
    """decide answers the authorizer of expressions."""

    def __init__(self, store: Store, catalog: Catalog, policies: Policies, decide: Decide) -> None:
        super().__init__(store)
        self._decide = decide
        self._policies = policies
        self._matcher = Matcher(store, catalog)

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return not Resource(served.group, served.version, served.plural).exempt

    @property
    def serial(self) -> int:
        return self._policies.serial + self._matcher.serial

    def waits(self, served: Served, operation: Operation, subresource: str) -> bool:
        """A request that expressions look at runs beside the loop, whatever they cost."""
        return self.handles(served, operation, subresource) and any(
            self._matcher.may_concern(policy, served, operation, subresource)
            for policy in self._policies.all()
        )
