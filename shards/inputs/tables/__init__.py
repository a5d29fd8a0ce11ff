"""Parquet files that hold pictures."""
