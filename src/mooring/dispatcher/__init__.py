"""The dispatcher: keeps the queue of tasks, and hands each to a task worker that has nothing to do."""
