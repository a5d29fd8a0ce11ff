"""Inputs that are damaged at random, and what must hold of each."""
