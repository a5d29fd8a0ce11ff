"""Rounds of pre-training, finetuning and cleaning: their recipes and their ledger."""
