"""The gateway: the process role that owns connections and speaks HTTP and WebSocket to clients."""
