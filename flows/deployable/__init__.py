"""The flows: what Prefect runs, shows and schedules, one file each, readable top to bottom."""
