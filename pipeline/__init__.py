"""Moves data and runs: the only package that opens files, starts Ray, talks to MLflow."""
