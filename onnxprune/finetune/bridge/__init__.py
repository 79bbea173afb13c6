"""From an ONNX model to a torch module that trains its weights, and back into the same file."""

from onnxprune.finetune.bridge.module import OnnxModule, several, to_torch
from onnxprune.finetune.bridge.registry import UnsupportedError, supported
from onnxprune.finetune.bridge.write_back import write_back

__all__ = ["OnnxModule", "UnsupportedError", "several", "supported", "to_torch", "write_back"]
