"""Parts of ``scripts/studies/architecture_picture.py``: imports between folders, their layout."""
