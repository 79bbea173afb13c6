"""onnxprune compresses any exported ONNX model, and measures what was gained."""
