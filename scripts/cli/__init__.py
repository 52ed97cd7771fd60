"""Parts that the commands share: arguments, registry, files, progress."""
