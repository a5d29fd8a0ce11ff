"""Shards on their way: three stages that overlap, from bytes to commit: `line`."""
