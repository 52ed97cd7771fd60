"""Parts of ``python scripts/variational_inference.py``."""
