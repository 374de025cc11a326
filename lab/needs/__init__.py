"""Checks of what a lab needs from the machine's kernel, made before the lab starts."""
