"""Baselines: one file, one row of Tables 1-3."""
