"""One pod's life on its node: its worker, and what the worker plans, starts, writes and ends."""
