"""What is measured of an agent in environments and on states of its own."""
