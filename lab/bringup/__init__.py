"""Bring-up: the steps from an empty sandbox to a ready cluster, and what they start and write."""
