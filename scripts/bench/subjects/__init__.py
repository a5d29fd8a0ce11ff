"""Benchmarks of single subjects, each a program: `python -m scripts.bench.subjects.NAME`."""
