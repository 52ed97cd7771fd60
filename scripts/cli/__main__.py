"""``python -m pgtoolkit.scripts.cli COMMAND`` is ``pgtoolkit COMMAND``."""

from pgtoolkit.scripts.cli.main import main

main()
