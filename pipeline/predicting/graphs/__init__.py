"""A model as ONNX graphs, family by family: `<protocol>.py` holds how a model of that protocol is cut into graphs, and
what stands for it while a task predicts with them. See `_family.py`."""
