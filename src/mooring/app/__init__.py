"""What the application's callbacks get: requests, responses, and the table of events."""
