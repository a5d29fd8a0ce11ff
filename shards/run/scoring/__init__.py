"""Scores that were made later or elsewhere, and conditions over all scores and columns."""
