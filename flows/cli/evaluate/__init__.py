"""`capfilt evaluate`: how good a checkpoint is, one file for each kind of task."""
