"""What several tests use: a real server in real processes, and waits that have a limit."""
