"""Captures packets, decodes them, and follows a packet from interface to interface."""
