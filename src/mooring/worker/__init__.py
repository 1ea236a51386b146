"""The worker role: runs the application's handlers (`worker`) and shows them sessions (`session`)."""
