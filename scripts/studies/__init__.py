"""Scripts that measure and draw what the documentation says of this package."""
