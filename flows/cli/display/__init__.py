"""Answers as tables that fit 80 columns."""
