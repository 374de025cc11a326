"""Tells when a configuration file is written or moved away: upstream then ends, and its supervisor
starts it again with the new content."""

from __future__ import annotations

from pathlib import Path

from kubewire.components.kernel import inotify


class ConfigFileChanged(Exception):
    def __init__(self) -> None:
        super().__init__("content of the proxy server's configuration file was updated")


async def until_changed(path: str) -> None:
    """Raises ConfigFileChanged, or OSError when the file cannot be watched. Deleting it is no
    change."""
    wanted = inotify.IN_MODIFY | inotify.IN_MOVE_SELF
    with inotify.Watch(Path(path), wanted) as watch:
        while not await watch.changed() & wanted:
            pass
    raise ConfigFileChanged
