"""What a shell completes: the words, and a script for each shell."""
