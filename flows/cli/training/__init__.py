"""Commands of the `Train` group: trainings, rounds, and their deployments."""
