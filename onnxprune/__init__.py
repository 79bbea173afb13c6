"""onnxprune compresses any exported ONNX model, and measures what was gained."""

__version__ = "0.1.0"
