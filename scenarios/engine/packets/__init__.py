"""Captured packets: taking, decoding, following."""
