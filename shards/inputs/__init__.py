"""What goes in: the list of input shards, and the strict reader of each."""
