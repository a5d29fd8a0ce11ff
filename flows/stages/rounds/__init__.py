"""Rounds of cleaning and training, and trials of what they came to."""
