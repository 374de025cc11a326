"""Stale UDP flows: stale.py decides (pure), netlink.py lists and deletes."""
