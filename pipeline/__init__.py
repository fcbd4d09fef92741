"""Moves data and runs: the only package that opens files, starts Ray, talks to MLflow."""

import os

# libgomp's threads spin at barriers: two of them were seen to make a training step 25 times slower than one, probably
# wherever something else needs the cores. It is read when torch is first imported, so it stands here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Read when webdataset is first imported, in whichever process that is: urls in its tars then run no commands.
os.environ["WDS_SECURE"] = "1"
# Nothing of what is trained here is told to MLflow's makers. Read when mlflow is imported, in the UI's server too.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
