"""The parts of `pgtoolkit report`: runs as they are read, charts, and the page."""
