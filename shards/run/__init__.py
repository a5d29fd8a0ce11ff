"""The run folder and the protocol by which its files come to count."""
