"""Models of other makers: Hugging Face folders that transformers' own classes open, as they are."""
