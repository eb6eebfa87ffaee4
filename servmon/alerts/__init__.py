"""WHO is told."""
