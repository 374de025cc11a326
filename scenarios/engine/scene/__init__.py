"""Where a case runs: its lab, its namespace and its programs in pods, and what names mean there."""
