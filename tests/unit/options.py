"""The options of one listener, as a gateway hands them to mooring._core.websocket."""

OPTIONS = {
    "max_message": 1 << 20,
    "max_fragments": 1024,
    "write_limit": 1 << 20,
    "high_water": 1 << 16,
    "request_timeout": 30.0,
    "idle_timeout": 30.0,
    "write_timeout": 30.0,
    "close_timeout": 30.0,
    "http": {},
}
