"""Commands that kill, damage and misuse runs, to see that nothing is lost and nothing is silent."""
