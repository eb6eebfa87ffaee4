"""The mirror in Elasticsearch; it only follows Postgres and may be dead."""
