"""What listens and what carries: TCP listeners, and the socket between the supervisor and a child."""
