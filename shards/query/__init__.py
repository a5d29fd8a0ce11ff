"""Questions in SQL to the tables of a run, and their bounds."""
