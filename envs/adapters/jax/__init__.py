"""JAX, Brax and MJX environments, by vector-Jacobian products through DLPack."""
