"""Neural-network modules: layers, image encoder, observation normaliser, value functions."""
