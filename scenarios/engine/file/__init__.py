"""Reads and checks scenario files and lab files."""
