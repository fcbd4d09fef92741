"""Moves data and runs: the only package that opens files, starts Ray, talks to MLflow."""

import os

# libgomp's threads spin at barriers. On a machine with anything else to do, two spinning threads made a training step
# 25 times slower than one; it is read when torch is first imported, so it stands here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
