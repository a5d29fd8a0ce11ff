"""The record of a download: a list of addresses in parts, and what became of each row."""
