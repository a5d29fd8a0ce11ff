"""Where a training runs: its recipes, its worker, its launchers, and where its numbers go."""
