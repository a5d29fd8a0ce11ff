"""The BLIP network: its towers, its settings, and what goes in: pixels and token ids."""
