"""Explain one sample: its facts and decisions, the words that sank it, and where a model looked."""
