"""Step rules: from a gradient to new parameters; one rule a file."""
