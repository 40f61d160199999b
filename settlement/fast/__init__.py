"""Compiled parts of settlement: what has to be done for every entry of a large cycle."""
