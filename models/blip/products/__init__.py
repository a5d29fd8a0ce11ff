"""Products with weights, laid out so that a machine computes them faster."""
