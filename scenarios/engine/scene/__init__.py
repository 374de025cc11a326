"""The scene of a case: its lab, its namespace and its probe programs, and what names mean in it."""
