"""Parts of ``python scripts/architecture_picture.py``: imports between folders and their layout."""
