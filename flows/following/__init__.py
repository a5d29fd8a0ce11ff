"""A command that Prefect follows: it works by itself, and another process reports for it."""
