"""Postgres, and the only room that talks to it: one module per table family, one function per query."""
