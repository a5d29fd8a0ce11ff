"""From image states to token ids: greedy, nucleus and beam search."""
