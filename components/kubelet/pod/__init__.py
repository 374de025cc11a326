"""The life of a pod on its node: its worker, and the parts that plan, start, write and stop."""
