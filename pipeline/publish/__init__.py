"""Publish: checkpoints and clean sets with a card that says what they are, for people and hubs."""
