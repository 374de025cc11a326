"""The image catalogue: it maps image names to programs of this machine.

No packet leaves a lab, so no image can be pulled; a container runs a program of the machine
instead. A Pod's `command` and `args` override an image's entrypoint and cmd as the Pod API defines
(core/v1 Container). Names are normalised as in distribution/reference: "busybox" means
docker.io/library/busybox:latest.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kubewire.components.base import yamlfile

DEFAULT_CATALOGUE = Path(__file__).with_name("images.yaml")

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_LABEL})(?:\.{_LABEL})*(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,}))?"
)
_PROGRAM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class InvalidImageName(ValueError):
    """The text is not an image name (the kubelet's reason InvalidImageName)."""


class UnknownImage(LookupError):
    """The catalogue does not have the image (reason ErrImagePull, then ImagePullBackOff)."""


class InvalidCatalogue(ValueError):
    """A catalogue or an `images` section has an error; the message names the file and the key."""


@dataclass(frozen=True)
class Reference:
    """A normalised image name. repository: with the registry. tag: "latest" if the name has neither
    tag nor digest."""

    repository: str
    tag: str
    digest: str = ""

    @classmethod
    def parse(cls, name: str) -> Reference:
        """Parses an image name. Raises InvalidImageName, with the text of containerd's parser."""
        match = _REFERENCE.fullmatch(name)
        if match is None:
            raise InvalidImageName(f'couldn\'t parse image name "{name}": invalid reference format')
        repository = match["name"]
        first, slash, _ = repository.partition("/")
        if not (slash and ("." in first or ":" in first or first == "localhost")):
            repository = f"docker.io/{repository}" if slash else f"docker.io/library/{repository}"
        repository = repository.replace("index.docker.io/", "docker.io/", 1)
        if repository.startswith("docker.io/") and repository.count("/") == 1:
            repository = repository.replace("docker.io/", "docker.io/library/", 1)
        digest = match["digest"] or ""
        return cls(repository, match["tag"] or ("" if digest else "latest"), digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


@dataclass(frozen=True)
class Image:
    """An entry of the catalogue. name: its key there; aliases share the entry."""

    name: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    programs: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: int | None = None
    preload: Literal["light", "components"] = "light"
    tools: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """What to start for a container: `main` with args, by forking, or `argv`, by executing it.

    env, working_dir, user: the image's, which the Pod may override. tools: name -> path, for the mounts
    of type "tools" of the runtime's contract. image: the entry, for the commands of `kubectl exec`
    (see command()).
    """

    image: Image
    main: str = ""
    argv: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: int | None = None
    preload: Literal["light", "components"] = "light"
    tools: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The program's name as ps shows it."""
        if self.main:
            return self.main.split(":")[0].split(".")[-2]
        return self.argv[0].rpartition("/")[2]

    def command(self, argv: Sequence[str]) -> Program:
        """Another command of the image, for kubectl exec, an exec probe or a lifecycle hook."""
        return _program(self.image, tuple(argv))


@dataclass(frozen=True)
class Catalogue:
    """images: repository or repository:tag, normalised -> Image. A * in it matches any text."""

    images: Mapping[str, Image]

    @classmethod
    def load(cls, path: Path = DEFAULT_CATALOGUE) -> Catalogue:
        """Reads a catalogue file. Raises InvalidCatalogue or OSError."""
        try:
            body = yamlfile.read(path)
        except yamlfile.YamlFileError as err:
            raise InvalidCatalogue(str(err)) from None
        return cls.parse(body, str(path))

    @classmethod
    def parse(cls, body: Any, where: str) -> Catalogue:
        """Reads a mapping with the form of images.yaml, also that of `images` in a lab file.

        where: the source, for errors. Raises InvalidCatalogue.
        """
        images: dict[str, Image] = {}
        for key, entry in _mapping({} if body is None else body, where).items():
            at = f"{where}: {key}"
            image = _image(key, entry, at)
            for name in (key, *_strings(entry.get("aliases", []), f"{at}.aliases")):
                images[_key(name, at)] = image
        return cls(images)

    def extended(self, other: Catalogue) -> Catalogue:
        """Both catalogues together; the other's entries take precedence."""
        return replace(self, images={**self.images, **other.images})

    def find(self, name: str) -> Image:
        """The entry of an image name. Raises UnknownImage or InvalidImageName."""
        reference = Reference.parse(name)
        for key in (f"{reference.repository}:{reference.tag}", reference.repository):
            if (image := self.images.get(key)) is not None:
                return image
        if (image := self._by_pattern(reference)) is not None:
            return image
        known = ", ".join(sorted({image.name for image in self.images.values()}))
        entry = f'images: {{"{name}": {{argv: [/usr/bin/PROGRAM]}}}}'
        raise UnknownImage(
            f'image "{name}" is not in the image catalogue; known: {known}. '
            f"To map it to a program of this machine, put into the lab file: {entry}"
        )

    def _by_pattern(self, reference: Reference) -> Image | None:
        """Of the patterns that fit, the one that says most."""
        names = (f"{reference.repository}:{reference.tag}", reference.repository)
        patterns = (key for key in self.images if "*" in key)
        fitting = [key for key in patterns if any(fnmatch.fnmatchcase(name, key) for name in names)]
        return self.images[max(fitting, key=len)] if fitting else None

    def resolve(self, name: str, command: Sequence[str] = (), args: Sequence[str] = ()) -> Program:
        """The program of a container with this image, command and args.

        command replaces entrypoint and cmd; args replaces cmd. Raises InvalidImageName or
        UnknownImage, the latter with containerd's text if there is nothing to run.
        """
        image = self.find(name)
        argv = tuple(command) or image.entrypoint
        argv += tuple(args) or (() if command else image.cmd)
        return _program(image, argv)

    def image_id(self, name: str) -> str:
        """The imageID for a container's status: the repository and a digest.

        Without a digest in the name it is the digest of the entry's contents, so it is stable.
        """
        reference = Reference.parse(name)
        contents = f"{reference} {self.find(name)}".encode()
        digest = reference.digest or f"sha256:{hashlib.sha256(contents).hexdigest()}"
        return f"{reference.repository}@{digest}"


def _program(image: Image, argv: tuple[str, ...]) -> Program:
    if not argv:
        raise UnknownImage("no command specified")
    given: dict[str, Any] = {
        "env": image.env,
        "working_dir": image.working_dir,
        "user": image.user,
        "preload": image.preload,
        "tools": image.tools,
    }
    main = image.programs.get(argv[0])
    if main is None:
        return Program(image, argv=argv, **given)
    return Program(image, main=main, args=argv[1:], **given)


def _key(name: str, at: str) -> str:
    try:
        if "*" in name:
            return _pattern(name)
        reference = Reference.parse(name)
    except InvalidImageName as err:
        raise InvalidCatalogue(f"{at}: {err}") from None
    tagged = ":" in name.rpartition("/")[2]
    return f"{reference.repository}:{reference.tag}" if tagged else reference.repository


def _pattern(name: str) -> str:
    """Normalises a pattern as a name: example/* becomes docker.io/example/*.

    A first part is a registry if it has a dot, a colon or a *.
    """
    Reference.parse(name.replace("*", "x"))
    first, slash, _ = name.partition("/")
    if name == "*" or (slash and (first == "localhost" or any(mark in first for mark in ".:*"))):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


_KEYS = (
    "entrypoint",
    "argv",
    "main",
    "cmd",
    "programs",
    "env",
    "workingDir",
    "user",
    "preload",
    "tools",
    "aliases",
)


def _image(name: str, body: Any, at: str) -> Image:
    entry = _mapping(body, at)
    if unknown := sorted(set(entry) - set(_KEYS)):
        raise InvalidCatalogue(f"{at}: unknown key {unknown[0]!r}; allowed: {', '.join(_KEYS)}")
    if sum(key in entry for key in ("entrypoint", "argv", "main")) > 1:
        raise InvalidCatalogue(
            f"{at}: only one of entrypoint, argv (the same) and main can be given",
        )
    entrypoint = _strings(entry.get("entrypoint", entry.get("argv", [])), f"{at}.entrypoint")
    programs = _string_map(entry.get("programs", {}), f"{at}.programs")
    if "main" in entry:
        command = str(entry["main"]).split(":")[0].rpartition(".")[2]
        entrypoint = (command,)
        programs = {**programs, command: str(entry["main"])}
    for command, main in programs.items():
        if not _PROGRAM.fullmatch(main):
            form = '"package.module:function"'
            raise InvalidCatalogue(f"{at}.programs[{command}]: {main!r} must have the form {form}")
    preload = entry.get("preload", "light")
    if preload not in ("light", "components"):
        raise InvalidCatalogue(f"{at}.preload: {preload!r} must be light or components")
    cmd = _strings(entry.get("cmd", []), f"{at}.cmd")
    if not entrypoint and not cmd:
        raise InvalidCatalogue(f"{at}: one of entrypoint, argv, main and cmd must say what to run")
    working_dir = entry.get("workingDir", "")
    if not isinstance(working_dir, str) or (working_dir and not working_dir.startswith("/")):
        raise InvalidCatalogue(f"{at}.workingDir: {working_dir!r} must be an absolute path")
    user = entry.get("user")
    if user is not None and (isinstance(user, bool) or not isinstance(user, int) or user < 0):
        raise InvalidCatalogue(f"{at}.user: {user!r} must be a user's number")
    env = _string_map(entry.get("env", {}), f"{at}.env")
    tools = _string_map(entry.get("tools", {}), f"{at}.tools")
    return Image(name, entrypoint, cmd, programs, env, working_dir, user, preload, tools)


def _mapping(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidCatalogue(
            f"{at}: must be a mapping with string keys, is {type(value).__name__}",
        )
    return value


def _strings(value: Any, at: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidCatalogue(f"{at}: must be a list of strings, is {value!r}")
    return tuple(value)


def _string_map(value: Any, at: str) -> dict[str, str]:
    pairs = _mapping(value, at)
    for key, item in pairs.items():
        if not isinstance(item, str):
            raise InvalidCatalogue(f"{at}.{key}: must be a string, is {item!r}")
    return dict(pairs)
