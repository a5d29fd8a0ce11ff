"""What can be learned: one objective a file, with what it alone needs."""
