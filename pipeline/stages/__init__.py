"""One file per DVC stage: read one section of params.yaml, call one function, print a summary."""
