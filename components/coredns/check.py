"""Whether a Corefile is one that CoreDNS's pods can run with, found out without starting
anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kubewire.components.coredns import corefile
from kubewire.components.coredns.corefile import CorefileError, Line, ServerBlock, Token
from kubewire.components.coredns.instance import Instance
from kubewire.components.coredns.plugin import PluginError
from kubewire.components.coredns.plugins import PLUGINS

#: Plugin -> who asks it, in coredns.yaml.
_ASKED = {"ready": "readinessProbe", "health": "livenessProbe"}


def problems(text: str) -> Iterator[str]:
    """What CoreDNS would say of it at its start, and what the probes of its pods would miss."""
    try:
        blocks = corefile.parse(text, known=frozenset(PLUGINS))
        Instance.build([_without_files(block) for block in blocks])
    except (CorefileError, PluginError) as error:
        yield str(error)
        return
    if not blocks:
        yield "it has no server block; kubeadm's begins with .:53 {"
        return
    there = {line.name for block in blocks for line in block.directives}
    for plugin, probe in _ASKED.items():
        if plugin not in there:
            yield f"the plugin {plugin} is missing, which the {probe} of CoreDNS's pods asks; add a line with {plugin}"


def _without_files(block: ServerBlock) -> ServerBlock:
    """What forward's /etc/resolv.conf holds, the pod sees and not who checks."""
    return replace(block, directives=tuple(_without_file(line) for line in block.directives))


def _without_file(line: Line) -> Line:
    if line.name != "forward":
        return line
    words = (
        Token("127.0.0.1", one.file, one.line) if one.text.startswith("/") else one
        for one in line.tokens
    )
    return replace(line, tokens=tuple(words))
