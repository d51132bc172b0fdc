"""The experiments: one file for each kind. `paper/experiments.py` has their names."""
