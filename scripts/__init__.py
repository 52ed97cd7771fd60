"""The commands of ``pgtoolkit``. Each module ``NAME`` is also a script, ``scripts/NAME.py``."""
