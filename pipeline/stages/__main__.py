"""`python -m pipeline.stages <stage> <name>`, which dvc.yaml calls."""

from pipeline.stages._command import main

main()
