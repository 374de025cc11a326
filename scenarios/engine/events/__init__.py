"""What a run tells: options, results and events, which reports are made of."""
