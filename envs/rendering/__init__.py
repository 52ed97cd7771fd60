"""Pictures of environments, drawn with Pillow."""
