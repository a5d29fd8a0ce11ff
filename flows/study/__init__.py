"""Studies that reproduce a table of the paper on the toy world."""
