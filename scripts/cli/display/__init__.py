"""What a command shows while it works: progress, status lines and videos."""
