"""A pattern for some layers and a sparsity for others, by rules; no data and no files needed."""

from pathlib import Path

import onnxprune

MODELS = Path(__file__).parent.parent / "models"


def progress(step: str, done: int, total: int) -> None:
    """Called as often as there is something to tell."""
    if done == total:
        print(f"{step}: done")


def main() -> onnxprune.Report:
    """Half of LeNet-5's large layer in 2:4 for a GPU, the second convolution at 70 %, the rest dense."""
    recipe = onnxprune.Recipe(
        rules=(
            onnxprune.Rule(op_types=("Gemm",), pattern="2:4"),
            onnxprune.Rule(match="conv2.*", sparsity=0.7),
            onnxprune.Rule(match="fc2.weight", exclude=True),
        )
    )
    report = onnxprune.prune(MODELS / "lenet5.onnx", recipe=recipe, progress=progress)
    for weight in report.weights or ():
        print(f"{weight.name}: {weight.sparsity:.0%} zeros, {weight.pattern}")
    return report


if __name__ == "__main__":
    main()
