"""The fixtures of labs."""

from tests.lab.conftest import short_path

__all__ = ["short_path"]
