"""Hostile bytes to pixels: pictures, videos, and the child processes that guard their decoding."""
