"""What keeps the history of topics, and carries them between nodes; see README.md."""
