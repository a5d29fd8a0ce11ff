"""The record: what goes in, what comes out, and proof that nothing was lost between.

Strict tar reader, tables, clean shards, commits, snapshots and statistics. Nothing here knows a
model, and nothing here has an opinion about quality.
"""
