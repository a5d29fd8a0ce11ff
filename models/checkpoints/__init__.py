"""Checkpoints: read, checked, converted, and made into the network of a role."""
