"""How the files of a run are written, read and locked, whatever they hold."""
