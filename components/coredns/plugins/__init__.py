"""The plugins, in the order of the chain (CoreDNS's plugin.cfg).

A new plugin is a folder with a setup() function and a README, and a line in PLUGINS. The order of
the directives in a Corefile does not matter.
"""

from __future__ import annotations

from kubewire.components.coredns.plugin import Factory
from kubewire.components.coredns.plugins import (
    cache,
    errors,
    forward,
    health,
    hosts,
    kubernetes,
    loadbalance,
    log,
    loop,
    prometheus,
    ready,
    reload,
    rewrite,
    template,
)

PLUGINS: dict[str, Factory] = {
    "reload": reload.setup,
    "ready": ready.setup,
    "health": health.setup,
    "prometheus": prometheus.setup,
    "errors": errors.setup,
    "log": log.setup,
    "loadbalance": loadbalance.setup,
    "cache": cache.setup,
    "rewrite": rewrite.setup,
    "template": template.setup,
    "hosts": hosts.setup,
    "kubernetes": kubernetes.setup,
    "loop": loop.setup,
    "forward": forward.setup,
}
