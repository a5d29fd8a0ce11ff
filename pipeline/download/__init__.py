"""Lists of addresses to WebDataset tars, by img2dataset."""
