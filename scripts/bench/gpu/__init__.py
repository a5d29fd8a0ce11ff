"""What a GPU does with capfilt, in stages of minutes: `python scripts/benchmark_gpu.py`."""
