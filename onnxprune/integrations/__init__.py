"""onnxprune as a step of other tools' pipelines."""
