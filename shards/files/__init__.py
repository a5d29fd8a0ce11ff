"""Local files: whole or not there, made once, and read within bounds."""
