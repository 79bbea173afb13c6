"""ONNX to ONNX: what can be pruned, how much, where, and the passes that do it.

Needs no training framework and no runtime: ``onnx``, ``onnx_ir``, ``numpy`` and ``scipy`` only.
"""
