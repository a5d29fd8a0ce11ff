"""A mirror of the tree, and `end_to_end/`."""
