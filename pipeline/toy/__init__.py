"""A made-up world of shapes whose truth is known: for demos, tests and studies alone."""
