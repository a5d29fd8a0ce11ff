"""Verification: everything a run claims, recomputed from its files by other means than the writer.

`run` checks the whole; the others check one shard, the lists, the views, the rules between rows;
`garbage` finds what nothing names.
"""
