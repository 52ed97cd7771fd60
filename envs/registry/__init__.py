"""From an environment's name to the environment."""
