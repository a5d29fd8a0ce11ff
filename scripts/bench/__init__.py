"""Benchmarks: cleaning beside its peers (`python -m scripts.bench`), GPUs, single subjects."""
