"""What runs in img2dataset's own environment: it, the standard library, and nothing else."""
