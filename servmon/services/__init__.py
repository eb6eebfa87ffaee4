"""What the API, the command line and Python callers call."""
