"""Parts that the commands share: arguments, registry, environments, files, progress."""
