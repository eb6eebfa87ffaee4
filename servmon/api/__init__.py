"""The admin API: aiohttp routes that translate between HTTP and the services."""
