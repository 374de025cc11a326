"""The verbs `resource` and `events`: the state of objects in the Kubernetes API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import yaml

from kubewire.components.kubeapi.jsonpath import JSONPath, as_text
from kubewire.components.kubeapi.resources import EVENTS, KubeObject, Resource
from kubewire.scenarios.engine.scene.scene import End, Scene, SceneError
from kubewire.scenarios.engine.verbs.arguments import (
    JsonPath,
    Pattern,
    Patterns,
    Texts,
    Value,
    choice,
)
from kubewire.scenarios.engine.verbs.base import (
    AT_LEAST_ONE,
    Counted,
    Look,
    Observation,
    first_lines,
    listed,
    quoted,
    text_problem,
)


def _where(resource: Resource[Any], namespace: str) -> str:
    return f" -n {namespace}" if resource.namespaced else ""


@dataclass(frozen=True)
class ResourceState(Look):
    """Objects in the Kubernetes API: their fields, their number, or whether they exist."""

    SOURCE: ClassVar = "none"
    NEEDS_API: ClassVar = True
    of: Annotated[str, "one object as KIND/NAME, or all objects of a KIND"]
    namespace: Annotated[str, "the namespace (default: the case's own)"] = ""
    jsonpath: Annotated[JsonPath, "the fields to check, as kubectl's JSONPath"] = ""
    selector: Annotated[str, "a label selector"] = ""
    exists: Annotated[bool, "false: no such object or field may exist"] = True
    count: Annotated[Counted | None, "the number of objects or fields"] = None
    equals: Annotated[Value, "the exact value, without surrounding white space"] = None
    contains: Annotated[Texts, "texts that must all occur in it"] = ()
    matches: Annotated[Patterns, "regular expressions that must all match in it"] = ()
    absent: Annotated[Patterns, "regular expressions that must not match in it"] = ()

    def look(self, scene: Scene, source: End) -> Observation:
        kind, _, name = self.of.partition("/")
        try:
            resource = scene.cluster.resource(kind)
        except LookupError as error:
            raise SceneError(str(error)) from error
        namespace = (self.namespace or scene.namespace) if resource.namespaced else ""
        found = self._objects(scene, resource, name, namespace)
        values = self._values(found, bool(name))
        why = self._problem(found, values)
        selected = f" -l {self.selector}" if self.selector else ""
        output = f" -o jsonpath='{self.jsonpath}'" if self.jsonpath else ""
        what = self.of.replace("/", " ")
        text = yaml.safe_dump_all(map(_readable, found), sort_keys=False)
        return Observation(
            holds=not why,
            command=f"kubectl get {what}{_where(resource, namespace)}{selected}{output}",
            seen=f"{self.of}{selected} {self.jsonpath}  {self._shown(found, values)}",
            why=why,
            detail=first_lines(text, 60) if found else "",
        )

    def _objects(
        self,
        scene: Scene,
        resource: Resource[Any],
        name: str,
        namespace: str,
    ) -> list[KubeObject]:
        if name:
            one = scene.cluster.find(resource, name, namespace)
            return [one] if one else []
        return scene.cluster.list(resource, namespace, self.selector)

    def _values(self, found: list[KubeObject], single: bool) -> list[str]:
        if not self.jsonpath:
            return [str(item["metadata"]["name"]) for item in found]
        path = JSONPath.parse(self.jsonpath)
        data: Any = found[0] if single and found else {"items": found}
        return [as_text(value) for value in path.find(data)] if found else []

    def _problem(self, found: list[KubeObject], values: list[str]) -> str:
        if self.count is not None:
            if self.count.holds(len(values)):
                return ""
            return f"expected {self.count}, got {len(values)}: {listed(values)}"
        there = bool(values)
        if there != self.exists:
            problem = "is not there" if self.exists else "should not be there"
            return f"{problem}: {self.of} {self.jsonpath}".rstrip()
        if not there:
            return ""
        return text_problem(
            "\n".join(values),
            equals=self.equals,
            contains=self.contains,
            matches=self.matches,
            absent=self.absent,
        )

    def _shown(self, found: list[KubeObject], values: list[str]) -> str:
        if not found:
            return "not found"
        if self.jsonpath:
            return "= " + (quoted(" ".join(values), 120) if values else "nothing")
        return (
            f"{len(values)} found: {listed(values)}" if self.count or self.selector else "is there"
        )


def _readable(obj: KubeObject) -> KubeObject:
    """The object without managedFields and annotations, which make it hard to read."""
    metadata = dict(obj.get("metadata", {}))
    for key in ("managedFields", "annotations"):
        metadata.pop(key, None)
    return {**obj, "metadata": metadata}


@dataclass(frozen=True)
class Events(Look):
    """Events of the Kubernetes API."""

    SOURCE: ClassVar = "none"
    NEEDS_API: ClassVar = True
    about: Annotated[str, "the involved object, as KIND/NAME"] = ""
    reason: Annotated[str, "the reason, such as Scheduled"] = ""
    type: Annotated[str, choice("Normal", "Warning")] = ""
    message: Annotated[Pattern, "a regular expression that must match in the message"] = ""
    namespace: Annotated[str, "the namespace (default: the case's own)"] = ""
    count: Annotated[Counted, "the number of such events"] = AT_LEAST_ONE

    def look(self, scene: Scene, source: End) -> Observation:
        namespace = self.namespace or scene.namespace
        events = scene.cluster.list(EVENTS, namespace)
        fitting = [event for event in events if self._fits(event)]
        why = ""
        if not self.count.holds(len(fitting)):
            why = f"expected {self.count} such events, got {len(fitting)}"
        wanted = listed(filter(None, (self.about, self.type, self.reason, self.message)), "any")
        about = f" --for {self.about}" if self.about else ""
        return Observation(
            holds=not why,
            command=f"kubectl events -n {namespace}{about}",
            seen=f"events ({wanted})  {_line(fitting[-1]) if fitting else 'none'}",
            why=why,
            detail=first_lines("\n".join(_line(event) for event in (fitting or events))),
        )

    def _fits(self, event: KubeObject) -> bool:
        about = event.get("involvedObject", {})
        kind, _, name = self.about.partition("/")
        return (
            (not name or about.get("name") == name)
            and (not kind or about.get("kind", "").lower() == kind.lower())
            and (not self.reason or event.get("reason") == self.reason)
            and (not self.type or event.get("type") == self.type)
            and (not self.message or bool(re.search(self.message, event.get("message", ""))))
        )


def _line(event: KubeObject) -> str:
    about = event.get("involvedObject", {})
    return (
        f"{event.get('type')} {event.get('reason')} {about.get('kind', '').lower()}/{about.get('name')}: "
        f"{event.get('message')}"
    )


VERBS = {"resource": ResourceState, "events": Events}
