"""Network parts: layers, image encoder, observation normaliser, value function."""
