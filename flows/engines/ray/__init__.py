"""Ray: a session of it, its machines, and a pool of its actors."""
