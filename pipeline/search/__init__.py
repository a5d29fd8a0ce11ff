"""Search by embeddings: an index is built, kept in a folder, and asked in both directions."""
