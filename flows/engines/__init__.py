"""Where shards are worked on: in this process, or by Ray actors. Both give the same result."""
