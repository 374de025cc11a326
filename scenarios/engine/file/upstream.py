"""The settings of upstream's programs that a lab file can contain (kubeProxy, kubelet,
controllerManager, scheduler): their names, their forms, and which of them have an effect here.

A lab file accepts every name that upstream knows, so that a configuration from a real cluster can
be copied. Names without an effect here cause a warning. Everything is read from the components,
which parse these settings. A name with dots means nested mappings.
"""

from __future__ import annotations

import argparse
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

from kubewire.components.controllers import flags as controller_flags
from kubewire.components.kube_proxy import modes
from kubewire.components.kube_proxy.configuration import config as proxy
from kubewire.components.kube_proxy.configuration import validation as proxy_validation
from kubewire.components.kubeapi import quantity
from kubewire.components.kubelet import configuration as kubelet
from kubewire.components.scheduler import flags as scheduler_flags

Schema = dict[str, Any]

#: Settings that bring-up gives as flags, so that a lab file cannot set them: name -> why.
_GIVEN_TO_PROXY = {
    "hostnameOverride": "each kube-proxy gets its node's name by --hostname-override",
}
_GIVEN_TO_KUBELET = {
    "containerRuntimeEndpoint": "the lab's fork server is the runtime, and a flag names it",
}
_PROXY_WITHOUT_EFFECT = proxy.WITHOUT_EFFECT | _GIVEN_TO_PROXY.keys()
_KUBELET_WITHOUT_EFFECT = kubelet.WITHOUT_EFFECT | _GIVEN_TO_KUBELET.keys()
#: Sections of a KubeProxyConfiguration -> the modes that read them.
_PROXY_SECTIONS = {mode.name: tuple(modes.reading(mode.name)) for mode in modes.MODES}
_DURATION: Schema = {"type": ["string", "number"]}


@dataclass(frozen=True)
class Settings:
    """The settings below one key of a lab file (kubeProxy, kubelet, controllerManager, scheduler).

    kind: upstream's name for them. reference: address of their documentation.
    properties: JSON Schema of each name; names without an effect are "deprecated", which editors
    show. wrong: yields a sentence for each problem that the schema cannot express.
    """

    kind: str
    reference: str
    properties: Mapping[str, Schema]
    without_effect: frozenset[str]
    wrong: Callable[[Mapping[str, Any]], Iterator[str]]

    def is_without_effect(self, name: str) -> bool:
        """Whether a name, or a section that contains it, has no effect here."""
        return any(name == one or name.startswith(f"{one}.") for one in self.without_effect)

    def ineffective(self, data: Mapping[str, Any]) -> Iterator[str]:
        """The names in the data that have no effect here."""
        return filter(self.is_without_effect, _names(data))

    def effective(self, data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """The data without names that have no effect."""
        kept: dict[str, Any] = {}
        for key, value in data.items():
            name = prefix + key
            if name in self.without_effect:
                continue
            inner = self.effective(value, f"{name}.") if isinstance(value, Mapping) else value
            if inner or not value:
                kept[key] = inner
        return kept


def settings() -> Mapping[str, Settings]:
    """Key of the lab file -> its settings."""
    return {
        "kubeProxy": Settings(
            proxy.KIND,
            "https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/",
            _proxy_properties(),
            _PROXY_WITHOUT_EFFECT,
            _wrong_proxy,
        ),
        "kubelet": Settings(
            "KubeletConfiguration",
            "https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/",
            _kubelet_properties(),
            _KUBELET_WITHOUT_EFFECT,
            _wrong_kubelet,
        ),
        "controllerManager": Settings(
            "kube-controller-manager's flags",
            "https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/",
            _flag_properties(controller_flags.parser(), controller_flags.WITHOUT_EFFECT),
            controller_flags.WITHOUT_EFFECT,
            _wrong_controller_flags,
        ),
        "scheduler": Settings(
            "kube-scheduler's flags",
            "https://kubernetes.io/docs/reference/command-line-tools-reference/kube-scheduler/",
            _flag_properties(scheduler_flags.parser(), scheduler_flags.WITHOUT_EFFECT),
            scheduler_flags.WITHOUT_EFFECT,
            _wrong_scheduler_flags,
        ),
    }


def warnings(key: str, data: Mapping[str, Any], mode: str = "") -> Iterator[str]:
    """Yields a sentence for each name that has no effect. mode: that of kube-proxy."""
    for name in settings()[key].ineffective(data):
        why = _GIVEN_TO_PROXY.get(name) or _GIVEN_TO_KUBELET.get(name)
        why = why or "it is upstream's, and nothing here reads it"
        yield f"{key}.{name} has no effect: {why}"
    if key != "kubeProxy":
        return
    if mode == "none" and data:
        yield f"kubeProxy: {', '.join(data)} has no effect: with mode none no kube-proxy runs"
    for name, readers in _PROXY_SECTIONS.items() if mode != "none" else ():
        if name in data and mode not in readers:
            reads = f"it is for mode {' and '.join(readers)}, and the mode is {mode}"
            yield f"kubeProxy.{name} has no effect: {reads}"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings merged, nested ones key by key; other values in over take precedence."""
    out = dict(base)
    for key, value in over.items():
        own = out.get(key)
        if isinstance(own, Mapping) and isinstance(value, Mapping):
            out[key] = merged(own, value)
        else:
            out[key] = value
    return out


def flags(data: Mapping[str, Any]) -> dict[str, str]:
    """Names and values of flags as --NAME -> text."""
    return {f"--{name}": _flag_text(value) for name, value in data.items()}


def _flag_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _names(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _proxy_properties() -> dict[str, Schema]:
    """The properties of kubeProxy, without mode, which the lab file describes itself."""
    found = _of_dataclass(proxy.KubeProxyConfiguration, "", _PROXY_WITHOUT_EFFECT)
    return {name: of for name, of in found.items() if name != "mode"}


def _of_dataclass(holder: Any, prefix: str, without_effect: Iterable[str]) -> dict[str, Schema]:
    hints = typing.get_type_hints(holder)
    return {
        proxy.json_name(field.name): _marked(
            _of_hint(
                field.name,
                hints[field.name],
                f"{prefix}{proxy.json_name(field.name)}",
                without_effect,
            ),
            f"{prefix}{proxy.json_name(field.name)}",
            without_effect,
        )
        for field in fields(holder)
    }


def _of_hint(name: str, hint: Any, path: str, without_effect: Iterable[str]) -> Schema:
    """The schema of a field. In a KubeProxyConfiguration every float except qps is a duration."""
    if is_dataclass(hint):
        return _mapping(_of_dataclass(hint, f"{path}.", without_effect))
    plain: dict[Any, Schema] = {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        float: {"type": "number"} if name == "qps" else _DURATION,
        tuple[str, ...]: {"type": "array", "items": {"type": "string"}},
        tuple[Any, ...]: {"type": "array"},
    }
    return plain.get(hint, {"type": "object"})


def _mapping(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _marked(of: Schema, path: str, without_effect: Iterable[str]) -> Schema:
    if path not in without_effect:
        return of
    return {**of, "deprecated": True, "description": "It has no effect here."}


def _wrong_proxy(data: Mapping[str, Any]) -> Iterator[str]:
    """The problems of a configuration of kube-proxy. data includes the mode."""
    try:
        proxy_validation.validate(proxy.decode(data))
    except proxy.ConfigError as error:
        yield str(error)


_READERS: dict[Any, Schema] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    kubelet.duration: _DURATION,
    quantity.value: {"type": ["string", "number"]},
}


def _kubelet_properties() -> dict[str, Schema]:
    without_effect = _KUBELET_WITHOUT_EFFECT
    root: dict[str, Schema] = {}
    for path in sorted((*kubelet.FIELDS, *kubelet.WITHOUT_EFFECT)):
        at, *inner = path.split(".")
        here = root
        while inner:
            here = here.setdefault(at, _mapping({}))["properties"]
            at, *inner = inner
        reader = kubelet.FIELDS.get(path, ("", None))[1]
        here[at] = _marked(_READERS.get(reader, {}), path, without_effect)
    return root


def _wrong_kubelet(data: Mapping[str, Any]) -> Iterator[str]:
    try:
        kubelet.decode(data)
    except kubelet.ConfigurationError as error:
        yield str(error)


def _flag_properties(
    parser: argparse.ArgumentParser,
    without_effect: frozenset[str],
) -> dict[str, Schema]:
    options = [name for name in parser._option_string_actions if name.startswith("--")]
    own = {name.removeprefix("--") for name in options} - {"help"}
    value: Schema = {"type": ["string", "number", "boolean"]}
    return {name: _marked(value, name, without_effect) for name in sorted(own | without_effect)}


class _WrongFlag(Exception):
    pass


def _refusing(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Makes a parser raise an error instead of printing it and ending the process."""

    def refuse(message: str) -> NoReturn:
        raise _WrongFlag(message.removeprefix("argument "))

    parser.error = refuse  # type: ignore[method-assign]
    return parser


def _arguments(data: Mapping[str, Any]) -> list[str]:
    return ["--kubeconfig=none", *(f"{flag}={value}" for flag, value in flags(data).items())]


def _wrong_controller_flags(data: Mapping[str, Any]) -> Iterator[str]:
    """The problems of single flags. kube-controller-manager itself checks combinations, together
    with the flags that bring-up passes."""
    try:
        _refusing(controller_flags.parser()).parse_args(_arguments(data))
    except _WrongFlag as error:
        yield str(error)


def _wrong_scheduler_flags(data: Mapping[str, Any]) -> Iterator[str]:
    try:
        _refusing(scheduler_flags.parser()).parse_args(_arguments(data))
    except _WrongFlag as error:
        yield str(error)
