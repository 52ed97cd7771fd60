"""Training, loading and evaluating runs from Python, as the commands do it."""
