"""Arrays to bytes and cycles: sparse encodings, the weight blob, and the cost of fetching it.

Knows arrays only: a tensor is ``(name, array, zero point)``. Nothing here imports ONNX.
"""
