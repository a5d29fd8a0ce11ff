"""Training: batches out of shards, the loop, its state on disk, and what each task minimises."""
