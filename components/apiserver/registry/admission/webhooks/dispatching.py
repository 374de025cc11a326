"""The plugins MutatingAdmissionWebhook and ValidatingAdmissionWebhook
(admission/plugin/webhook/mutating and validating).

Mutating webhooks are asked one after the other, because each sees what those before it changed.
Validating webhooks are asked at the same time. A call blocks the request's thread (owner.py), and
nothing is locked meanwhile: when another write comes in between, the store refuses this one and
the whole request is repeated, webhooks included.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass

from kubewire.components.apiserver import status
from kubewire.components.apiserver.cel.authorization import Decide
from kubewire.components.apiserver.cel.engine import EvaluationError
from kubewire.components.apiserver.cel.policies import all_hold
from kubewire.components.apiserver.registry import patch
from kubewire.components.apiserver.registry.admission import requests
from kubewire.components.apiserver.registry.admission.changes import Decode, replace_object
from kubewire.components.apiserver.registry.admission.plugin import Attributes, Operation, Plugin
from kubewire.components.apiserver.registry.admission.reinvocations import Reinvocations
from kubewire.components.apiserver.registry.admission.webhooks import reviews, rules
from kubewire.components.apiserver.registry.admission.webhooks.client import (
    CallFailed,
    WebhookClient,
)
from kubewire.components.apiserver.registry.admission.webhooks.configurations import (
    Configurations,
    Webhook,
)
from kubewire.components.apiserver.registry.admission.webhooks.rules import GROUP, Resource
from kubewire.components.apiserver.registry.catalog import Catalog, Served
from kubewire.components.apiserver.store import Store
from kubewire.components.kubeapi.resources import KubeObject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Invocation:
    """A webhook that is to be asked, and the resource as which it sees the request."""

    webhook: Webhook
    resource: Resource
    served: Served


class Rejected(Exception):
    """Refuses the request; the error is the answer to the client."""

    def __init__(self, error: status.StatusError) -> None:
        super().__init__(str(error))
        self.error = error


class _WebhookPlugin(Plugin):
    """What both plugins share: which webhooks a request concerns, and one call."""

    mutating: bool
    resource: str

    def __init__(
        self, store: Store, catalog: Catalog, decide: Decide, client: WebhookClient
    ) -> None:
        super().__init__(store)
        self._decide = decide
        self._catalog = catalog
        self._client = client
        self._configurations = Configurations(store, f"{self.resource}.{GROUP}")

    async def close(self) -> None:
        await self._client.close()

    def handles(self, served: Served, operation: Operation, subresource: str) -> bool:
        return not Resource(served.group, served.version, served.plural).exempt

    @property
    def serial(self) -> int:
        return self._configurations.serial + self._catalog.serial

    def waits(self, served: Served, operation: Operation, subresource: str) -> bool:
        resource = Resource(served.group, served.version, served.plural, subresource)
        webhooks = self._configurations.webhooks()
        if not webhooks or resource.exempt:
            return False
        # For the scope of a rule an object without a namespace has an empty one.
        namespace = "any" if served.namespaced else ""
        others = requests.equivalents(self._catalog, resource)
        return any(
            rules.first_match(
                webhook.rules, resource, others, webhook.match_policy, operation, namespace
            )
            for webhook in webhooks
        )

    def _webhooks(self) -> tuple[Webhook, ...]:
        """Those that can be asked now: what the server writes by itself asks nobody."""
        return self._configurations.webhooks() if self.store.owner.may_wait else ()

    def _invocation(self, webhook: Webhook, attributes: Attributes) -> Invocation | None:
        """How the webhook sees the request, or None if it does not; raises StatusError."""
        in_namespaces = requests.in_namespaces(webhook.namespaces, self.store, attributes)
        if in_namespaces is False:
            return None
        if not rules.object_selected(webhook.objects, attributes.obj, attributes.old):
            return None
        asked = requests.resource_of(attributes)
        resource = rules.first_match(
            webhook.rules,
            asked,
            requests.equivalents(self._catalog, asked),
            webhook.match_policy,
            attributes.operation,
            requests.namespace_of(attributes),
        )
        if resource is None:
            return None
        if in_namespaces is None:
            raise status.not_found("", "namespaces", requests.namespace_of(attributes))
        served = requests.served_as(self._catalog, attributes, resource)
        invocation = Invocation(webhook, resource, served)
        return invocation if self._meets_conditions(invocation, attributes) else None

    def _meets_conditions(self, invocation: Invocation, attributes: Attributes) -> bool:
        webhook, served = invocation.webhook, invocation.served
        if not webhook.conditions:
            return True
        try:
            seen = requests.expression_values(attributes, invocation.resource, served, self._decide)
            return all_hold(webhook.conditions, seen)
        except EvaluationError as error:
            if webhook.failure_policy == "Ignore":
                return False
            own = attributes.served
            raise status.forbidden(own.group, own.plural, attributes.name, str(error)) from error

    def _question(
        self, invocation: Invocation, attributes: Attributes, uid: str
    ) -> tuple[str, KubeObject]:
        webhook, served = invocation.webhook, invocation.served
        version = next((item for item in webhook.versions if item in reviews.VERSIONS), "")
        if not version:
            raise CallFailed(
                "could not create admission objects: webhook does not accept known "
                "AdmissionReview versions (v1, v1beta1)"
            )
        request = requests.request_json(attributes, invocation.resource, served, uid)
        request["object"] = requests.shown(attributes, served, attributes.obj)
        request["oldObject"] = requests.shown(attributes, served, attributes.old)
        return version, reviews.review(version, request)

    async def _ask(self, invocation: Invocation, attributes: Attributes) -> reviews.Response:
        """Asks one webhook; raises CallFailed, and Rejected when it refuses the request."""
        webhook = invocation.webhook
        if attributes.dry_run and webhook.side_effects not in ("None", "NoneOnDryRun"):
            raise Rejected(reviews.no_dry_run(webhook.name))
        uid = str(uuid.uuid4())
        version, question = self._question(invocation, attributes, uid)
        try:
            body = await self._client.post(webhook.client, question, webhook.timeout)
        except CallFailed as error:
            raise CallFailed(f"failed to call webhook: {error}") from error
        try:
            response = reviews.response(body, version, uid, self.mutating)
        except reviews.UndecodablePatch as error:
            text = "received undecodable patch in webhook response"
            raise CallFailed(f"{text}: {error}") from error
        except reviews.InvalidResponse as error:
            raise CallFailed(f"received invalid webhook response: {error}") from error
        attributes.warnings.extend(response.warnings)
        if not response.allowed:
            raise Rejected(reviews.refusal(webhook.name, response.result))
        return response

    def _failed(self, webhook: Webhook, error: CallFailed) -> None:
        """Raises the answer for a webhook that could not be asked, unless it may be ignored."""
        text = f'failed calling webhook "{webhook.name}": {error}'
        if webhook.failure_policy == "Ignore":
            log.warning("failing open: %s", text)
            return
        raise status.internal_error(text) from error


class MutatingAdmissionWebhook(_WebhookPlugin):
    """Asks every mutating webhook that a request concerns, and applies its patch.

    When one of them changed the object, the chain runs a second time. Then only webhooks with the
    reinvocationPolicy IfNeeded are asked again, and only when the object changed after their turn.
    """

    name = "MutatingAdmissionWebhook"
    mutating = True
    resource = "mutatingwebhookconfigurations"

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        decide: Decide,
        client: WebhookClient,
        decode: Decode,
    ) -> None:
        super().__init__(store, catalog, decide, client)
        self._decode = decode

    def admit(self, attributes: Attributes) -> None:
        webhooks = self._webhooks()
        if not webhooks:
            return
        again: Reinvocations = attributes.memory.setdefault(self.name, Reinvocations())
        if attributes.reinvoked and again.output != attributes.obj:
            again.require()
        for webhook in webhooks:
            if attributes.reinvoked and webhook.uid not in again.required:
                continue
            invocation = self._invocation(webhook, attributes)
            if invocation is None:
                continue
            if self._changed_by(invocation, attributes):
                again.require()
                attributes.reinvoke = True
            if webhook.reinvoked:
                again.asked.add(webhook.uid)
        again.output = patch.json_patch(attributes.obj, [])

    def _changed_by(self, invocation: Invocation, attributes: Attributes) -> bool:
        webhook = invocation.webhook
        try:
            response = self.store.owner.wait_for(self._ask(invocation, attributes))
        except Rejected as rejected:
            raise rejected.error from rejected
        except CallFailed as error:
            self._failed(webhook, error)
            return False
        if not response.patch:
            return False
        if not attributes.obj:
            text = f'admission webhook "{webhook.name}" attempted to modify the object'
            raise status.internal_error(f"{text}, which is not supported for this operation")
        if response.patch_type != "JSONPatch":
            failure = CallFailed(f'unsupported patch type "{response.patch_type}"')
            self._failed(webhook, failure)
            return False
        return self._apply(invocation, attributes, response)

    def _apply(
        self, invocation: Invocation, attributes: Attributes, response: reviews.Response
    ) -> bool:
        served = invocation.served
        before = requests.shown(attributes, served, attributes.obj)
        try:
            patched = patch.json_patch(before, list(response.patch))
        except patch.PatchError as error:
            raise status.internal_error(str(error)) from error
        if not isinstance(patched, dict):
            raise status.internal_error("the patched document is not an object")
        changed = patched != before
        replace_object(attributes, served, patched, self._decode)
        return changed


class ValidatingAdmissionWebhook(_WebhookPlugin):
    """Asks every validating webhook that a request concerns, all at the same time."""

    name = "ValidatingAdmissionWebhook"
    mutating = False
    resource = "validatingwebhookconfigurations"

    def validate(self, attributes: Attributes) -> None:
        found = [self._invocation(webhook, attributes) for webhook in self._webhooks()]
        relevant = [invocation for invocation in found if invocation is not None]
        if not relevant:
            return
        outcomes = self.store.owner.wait_for(self._ask_all(relevant, attributes))
        for invocation, outcome in zip(relevant, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                raise outcome.error from outcome
            if isinstance(outcome, CallFailed):
                self._failed(invocation.webhook, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome

    async def _ask_all(
        self, relevant: list[Invocation], attributes: Attributes
    ) -> list[reviews.Response | BaseException]:
        asking = (self._ask(invocation, attributes) for invocation in relevant)
        return await asyncio.gather(*asking, return_exceptions=True)
