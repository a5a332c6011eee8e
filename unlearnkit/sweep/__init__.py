"""Sweeps: methods x settings x concepts x seeds, each cell a run folder; a table, and erased against kept."""
