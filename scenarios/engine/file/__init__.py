"""Scenario files and lab files: reading, checking, short forms."""
