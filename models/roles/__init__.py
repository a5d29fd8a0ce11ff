"""Thin views over the BLIP towers, one file for each thing that the network does."""
