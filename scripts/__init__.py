"""What a person runs: the commands of ``pgtoolkit``. Each module is also a script."""
