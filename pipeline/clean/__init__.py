"""Clean one shard of pairs: `shard` wires screen, caption, score, judge and export."""
