"""Parts of ``compare``, ``plot`` and ``reproduce``: runs side by side, statistics and pictures."""
