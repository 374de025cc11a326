"""Runs cases: starts labs and shares them, performs steps, and checks expectations until they
hold."""
