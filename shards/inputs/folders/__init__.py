"""Folders of pictures, each with its text beside it or in a table."""
