"""WHAT a result means: pure functions of values and a time; no I/O, no clock."""
