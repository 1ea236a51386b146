"""What listens and what carries: TCP listeners, and the control socket between our processes."""
