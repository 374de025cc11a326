"""The options, results and events of a run; reports are made from the events."""
