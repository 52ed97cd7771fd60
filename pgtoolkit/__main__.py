"""``python -m pgtoolkit``, which is ``pgtoolkit``; torchrun starts a module."""

from pgtoolkit.scripts.cli.main import main

if __name__ == "__main__":
    main()
