"""Reads scenario files and turns each into its cases.

A scenario file is a template. `matrix` lists values for keys of the lab file, and each combination
(a cell) that `exclude` does not name is run. `variants` are alternatives that share most of the
file; a variant is merged over it as in JSON Merge Patch (RFC 7386). One cell with one variant is a
case, which is the unit that runs and has a result. All of this happens here, before any lab starts,
so the rest of the engine knows only cases, and a mistake in a file is reported within a second.

A file is checked in two passes: against the JSON schema, and then for what a schema cannot express
(a pod pinned to a node that the lab does not have, a `fails` that names no expectation). An error
names the file and the line. Problems of all files are collected and reported together.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from kubewire.scenarios.engine.file import faults, fixtures
from kubewire.scenarios.engine.file.check import check, nearest
from kubewire.scenarios.engine.file.document import (
    Document,
    KeyPath,
    SpecError,
    documents,
    dotted,
    read_manifests,
    read_text,
)
from kubewire.scenarios.engine.file.duration import seconds
from kubewire.scenarios.engine.file.manifests import object_problem
from kubewire.scenarios.engine.file.model import (
    Case,
    Expectation,
    Scenario,
    Step,
    Timeouts,
    Variant,
)
from kubewire.scenarios.engine.file.spec import LabSpec
from kubewire.scenarios.engine.verbs import VERBS

SUFFIX = ".scenario.yaml"
ACTIONS = (
    *("note", "apply", "delete", "scale", "patch", "wait", "exec", "capture", "component"),
    *("link", "start", "stop", "elapse", "save", "expect"),
)
#: Actions that need an API server.
OF_THE_API = ("apply", "delete", "scale", "patch", "wait", "component")
Content = TypeVar("Content")


def discover(paths: Iterable[Path]) -> list[Path]:
    """The scenario files among files and folders, sorted. Raises SpecError for a path that does not
    exist."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(path.rglob(f"*{SUFFIX}"))
        elif path.is_file():
            found.append(path)
        else:
            catalogue = "the catalogue (kubewire run -l) has no scenario or folder of this name"
            raise SpecError([f"{path}: no such file or folder, and {catalogue}"])
    return list(dict.fromkeys(found))


def load(path: Path) -> list[Case]:
    """The cases of a file. Raises SpecError, OSError."""
    text = read_text(path)
    document = Document.parse(text, str(path))
    check(document, "scenario.schema.json")
    return list(_File(document, path, hashlib.sha256(text.encode()).hexdigest()[:16]).cases())


def load_all(paths: Iterable[Path]) -> list[Case]:
    """The cases of many files. Raises SpecError with the problems of all files; two scenarios with
    the same name are a problem."""
    cases: list[Case] = []
    problems: list[str] = []
    for path in discover(paths):
        try:
            cases += load(path)
        except SpecError as error:
            problems += error.problems
    by_name: dict[str, Path] = {}
    for case in cases:
        first = by_name.setdefault(case.scenario.name, case.scenario.file)
        if first != case.scenario.file:
            problems.append(
                f"{case.scenario.file}: name: {case.scenario.name!r} is also the name of {first}",
            )
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    return cases


@dataclass(frozen=True)
class _File:
    document: Document
    path: Path
    digest: str

    def cases(self) -> Iterator[Case]:
        data = self.document.data
        times = {key: seconds(value) for key, value in data.get("timeouts", {}).items()}
        scenario = Scenario(
            name=data["name"],
            title=data["title"],
            description=data.get("description", "").strip(),
            topic=data.get("topic", self.path.parent.name),
            tags=tuple(data.get("tags", ())),
            requires=tuple(data.get("requires", ())),
            clock=data.get("clock", "real"),
            isolated=data.get("isolated", False),
            timeouts=Timeouts(**times),
            file=self.path,
            digest=self.digest,
        )
        self._check_steps_present()
        for cell in self._cells():
            for name in data.get("variants") or {"": None}:
                variant = self._variant(name, cell, scenario.timeouts)
                yield Case(
                    scenario,
                    variant,
                    variant.lab,
                    tuple((axis, str(value)) for axis, value in cell.items()),
                )

    def _check_steps_present(self) -> None:
        if self.document.data.get("steps"):
            return
        variants = self.document.data.get("variants", {})
        if not all(variant.get("steps") for variant in variants.values()):
            raise self._error(
                ("steps",),
                "missing: the scenario or each of its variants needs steps",
            )
        if not variants:
            raise self._error((), "steps is missing")

    def _error(self, path: KeyPath, what: str) -> SpecError:
        return SpecError([self.document.problem(path, what)])

    def _cells(self) -> Iterator[dict[str, Any]]:
        axes = self.document.data.get("matrix", {})
        excluded = self.document.data.get("exclude", [])
        for number, rule in enumerate(excluded):
            for axis in set(rule) - set(axes):
                raise self._error(("exclude", number, axis), f"not an axis{nearest(axis, axes)}")
        for values in itertools.product(*axes.values()):
            cell = dict(zip(axes, values, strict=True))
            if not any(rule.items() <= cell.items() for rule in excluded):
                yield cell

    def _variant(self, name: str, cell: Mapping[str, Any], timeouts: Timeouts) -> Variant:
        data = self.document.data
        own = data.get("variants", {}).get(name, {}) if name else {}
        at: KeyPath = ("variants", name) if name else ()
        lab = self._lab(own, at, cell)
        merged = merge(data.get("fixtures", {}), own.get("fixtures", {}))
        self._check_nodes(merged, lab, at)
        objects = [
            *fixtures.expand(merged, lab),
            *self._objects(data.get("manifests", []), ("manifests",)),
        ]
        if name:
            objects += self._objects(own.get("manifests", []), (*at, "manifests"))
        for number, overlay in enumerate(own.get("overlays", [])):
            objects = self._overlaid(objects, overlay, (*at, "overlays", number))
        steps = self._steps(own.get("before", []), (*at, "before"), timeouts)
        shared = at if own.get("steps") else ()
        steps += self._steps(
            own.get("steps") or data.get("steps", []),
            (*shared, "steps"),
            timeouts,
        )
        steps += self._steps(own.get("after", []), (*at, "after"), timeouts)
        if not lab.kubernetes:
            self._check_bare(objects, steps, at)
        steps = self._with_failures(steps, own.get("fails", []), (*at, "fails"))
        return Variant(
            name,
            own.get("title", ""),
            own.get("explain", "").strip(),
            lab,
            tuple(objects),
            tuple(steps),
        )

    def _check_nodes(self, merged: Mapping[str, Any], lab: LabSpec, at: KeyPath) -> None:
        """Refuses a pod that is pinned to a node which the lab does not have; it would stay Pending
        for ever."""
        there = fixtures.nodes("nodes", lab)
        for name, short in merged.get("pods", {}).items():
            node = short.get("node", there[0])
            if node not in there and "${" not in node:
                own: KeyPath = (*at, "fixtures", "pods", name, "node")
                path = own if own in self.document.lines else ("fixtures", "pods", name, "node")
                hint = nearest(node, there)
                raise self._error(path, f"no node {node!r}{hint}; this lab has {', '.join(there)}")

    def _check_bare(self, objects: Sequence[Any], steps: Sequence[Step], at: KeyPath) -> None:
        """Refuses objects and steps that need the API in a lab without Kubernetes."""
        if objects:
            raise self._error(
                at,
                "a lab with kubernetes: false has no API server for fixtures or manifests",
            )
        for step in steps:
            used = [one.verb for one in step.expectations if VERBS[one.verb].NEEDS_API]
            if step.action in OF_THE_API or used:
                what = step.action if step.action in OF_THE_API else used[0]
                why = f"{what} needs an API server, but the lab has kubernetes: false"
                raise SpecError([f"{step.where}: {why}"])

    def _lab(self, own: Mapping[str, Any], at: KeyPath, cell: Mapping[str, Any]) -> LabSpec:
        base = self.document.data.get("lab", {})
        prefix: KeyPath = ("lab",)
        if isinstance(base, str):
            base = self._read(base, prefix, LabSpec.load).as_dict()
        data = merge(base, own.get("lab", {}))
        for axis, value in cell.items():
            data = merge(data, _of_axis(axis, value))
        if own.get("lab"):
            prefix = (*at, "lab")
        depth = len(prefix)
        lines = {}
        for path, line in self.document.lines.items():
            if path[:depth] == prefix:
                lines[path[depth:]] = line
        # A problem with a value that an axis sets is reported at the axis.
        lines |= {tuple(axis.split(".")): self.document.lines["matrix", axis] for axis in cell}
        return LabSpec.from_document(Document(data, lines, self.document.where))

    def _read(self, name: str, path: KeyPath, how: Callable[[Path], Content]) -> Content:
        """Reads a file that the scenario names, relative to the scenario's folder."""
        file = self.path.parent / name
        try:
            return how(file)
        except OSError as error:
            raise self._error(path, f"{file}: {error.strerror}") from error

    def _objects(self, given: Any, path: KeyPath) -> list[dict[str, Any]]:
        where = self.document.at(path)
        if isinstance(given, dict):
            where = str(self.path.parent / given["file"])
            given = self._read(given["file"], (*path, "file"), read_manifests)
        if isinstance(given, str):
            given = [item for item in documents(given, where) if item]
        for number, item in enumerate(given, 1):
            if problem := object_problem(item):
                raise SpecError([f"{where}: {dotted(path)}: object {number}: {problem}"])
        return list(given)

    def _overlaid(
        self, objects: Sequence[dict[str, Any]], overlay: dict[str, Any], at: KeyPath
    ) -> list[dict[str, Any]]:
        key = (overlay.get("kind"), overlay.get("metadata", {}).get("name"))
        if key not in {(item["kind"], item["metadata"]["name"]) for item in objects}:
            known = ", ".join(f"{item['kind']}/{item['metadata']['name']}" for item in objects)
            raise self._error(
                at,
                f"{key[0]}/{key[1]} is not an object of this scenario; its objects: {known}",
            )
        overlaid = []
        for item in objects:
            matches = (item["kind"], item["metadata"]["name"]) == key
            overlaid.append(merge(item, overlay) if matches else item)
        return overlaid

    def _steps(
        self,
        given: Sequence[Mapping[str, Any]],
        path: KeyPath,
        timeouts: Timeouts,
    ) -> list[Step]:
        return [self._step(item, (*path, number), timeouts) for number, item in enumerate(given)]

    def _step(self, item: Mapping[str, Any], path: KeyPath, timeouts: Timeouts) -> Step:
        action = self._only(item, ACTIONS, path, "a step")
        args = item[action]
        expectations: tuple[Expectation, ...] = ()
        if action == "expect":
            listed = (
                [(args, (*path, action))]
                if isinstance(args, dict)
                else [(one, (*path, action, number)) for number, one in enumerate(args)]
            )
            expectations = tuple(self._expectation(one, at, timeouts) for one, at in listed)
        elif action == "apply":
            args = tuple(self._objects(args, (*path, action)))
        elif action == "capture" and ("start" in args) == ("stop" in args):
            raise self._error((*path, action), "needs either start: NAME or stop: NAME")
        elif action == "capture" and "start" in args and "on" not in args:
            raise self._error(
                (*path, action),
                "needs on: a list of interfaces such as worker-1:eth0",
            )
        elif action == "link" and (wrong := faults.problem(args)):
            raise self._error((*path, action), wrong)
        return Step(
            action,
            args,
            item.get("name", ""),
            item.get("explain", "").strip(),
            expectations,
            self.document.at(path),
        )

    def _expectation(
        self,
        item: Mapping[str, Any],
        path: KeyPath,
        timeouts: Timeouts,
    ) -> Expectation:
        name = self._only(item, tuple(VERBS), path, "an expectation")
        verb = VERBS[name]
        args = item[name]
        if isinstance(args, str):
            args = {verb.SHORT_FORM: args}
        sources = item.get("from", ())
        sources = (sources,) if isinstance(sources, str) else tuple(sources)
        if not sources and verb.SOURCE == "required":
            raise self._error(
                path,
                "from is missing; give a host (worker-1, client), pod:NAME or pods:LABEL=VALUE",
            )
        if sources and verb.SOURCE == "none":
            raise self._error((*path, "from"), f"{name} has no source; remove from")
        if wrong := verb.problem(args):
            key, what = wrong
            raise self._error((*path, name, key) if key else (*path, name), what)
        return Expectation(
            verb=name,
            args=args,
            sources=sources,
            family=item.get("family", ""),
            within=seconds(item.get("within", timeouts.within)),
            consistently=seconds(item.get("consistently", 0)),
            negated=item.get("not", False),
            name=item.get("name", ""),
            id=item.get("id", ""),
            explain=item.get("explain", "").strip(),
            where=self.document.at(path),
        )

    def _only(
        self,
        item: Mapping[str, Any],
        choices: Sequence[str],
        path: KeyPath,
        what: str,
    ) -> str:
        given = [key for key in choices if key in item]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise self._error(
                path,
                f"{what} needs exactly one of {', '.join(choices)}; given: {found}",
            )
        return given[0]

    def _with_failures(self, steps: list[Step], failing: Any, at: KeyPath) -> list[Step]:
        wanted = {failing} if isinstance(failing, str) else set(failing)
        known = {one.id for step in steps for one in step.expectations if one.id}
        for name in sorted(wanted - known):
            ids = ", ".join(sorted(known)) or "no expectation has one"
            hint = nearest(name, known)
            raise self._error(at, f"no expectation has the id {name!r}{hint}; ids: {ids}")
        marked = []
        for step in steps:
            expectations = [replace(one, must_fail=one.id in wanted) for one in step.expectations]
            marked.append(replace(step, expectations=tuple(expectations)))
        return marked


def merge(base: Any, over: Any) -> Any:
    """Merges plain data as RFC 7386 does: mappings are merged key by key, null removes a key, any
    other value replaces the one before."""
    if not isinstance(over, dict) or not isinstance(base, dict):
        return over
    merged = {key: value for key, value in base.items() if over.get(key, value) is not None}
    for key, value in over.items():
        if value is not None:
            merged[key] = merge(base.get(key, {} if isinstance(value, dict) else None), value)
    return merged


def _of_axis(axis: str, value: Any) -> dict[str, Any]:
    """The part of the lab file that a cell's value sets. "cni: calico/bgp" stands for plugin and
    backend."""
    if axis == "cni" and isinstance(value, str):
        plugin, _, backend = value.partition("/")
        return {"cni": {"plugin": plugin} | ({"backend": backend} if backend else {})}
    return _nested(axis.split("."), value)


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    head, *rest = keys
    return {head: _nested(rest, value) if rest else value}
