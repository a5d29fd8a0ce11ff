"""What is done to a shard of pairs, one verb per file; where it runs is decided in `flows`."""
