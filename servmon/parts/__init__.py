"""The parts of a running servmon, each put together in its own module; ``daemon.py`` joins them and shows the flow."""
