"""What a server says of itself to those who watch it: /metrics, /health and /ready."""
