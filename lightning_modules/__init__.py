"""Learning only: tasks, models, the blocks they share, tensor functions and metrics.

Nothing here imports ray, dvc or mlflow, and nothing opens a file.
"""
