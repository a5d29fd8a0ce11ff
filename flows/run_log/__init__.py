"""What a run says of itself: records of Python's logging, and the log in its folder."""
