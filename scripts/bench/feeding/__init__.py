"""What `scripts.bench.subjects.feeding` measures with: a device that sleeps, pieces alone."""
