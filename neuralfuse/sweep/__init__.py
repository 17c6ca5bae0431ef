"""Tasks, results, executors."""
