"""Prune and pack a model that never touches the disk, inside a pipeline of your own."""

from pathlib import Path

import onnx
import onnx_ir as ir
import onnxruntime as ort

import onnxprune

MODELS = Path(__file__).parent.parent / "models"


def main() -> int:
    """Make a packed LeNet-5 in memory, and run it."""
    model = onnx.load(MODELS / "lenet5.onnx")
    pruned = onnxprune.prune(model, sparsity=0.8, allocation="global")
    packed = onnxprune.pack(pruned.output)
    content = ir.to_proto(packed.output).SerializeToString()
    session = ort.InferenceSession(content)
    print(
        f"{model.ByteSize():,} bytes became {len(content):,}; inputs {session.get_inputs()[0].name}"
    )
    return len(content)


if __name__ == "__main__":
    main()
