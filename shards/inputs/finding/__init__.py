"""Finding what an input names: what lies there, of which kind, and what may have been meant."""
