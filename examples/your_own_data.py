"""Data from anywhere: any iterable of feeds, or onnxruntime's CalibrationDataReader."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import onnxprune

MODELS = Path(__file__).parent.parent / "models"


def feeds() -> Iterator[dict[str, np.ndarray]]:
    """Batches as a data loader would give them."""
    with np.load(MODELS / "lenet300-data.npz") as content:
        images, labels = content["image"], content["labels"]
    for start in range(0, 1000, 100):
        part = slice(start, start + 100)
        yield {"image": images[part], "labels": labels[part]}


def main(output: Path, trials: int = 20) -> onnxprune.Report:
    """Search with those batches."""
    recipe = onnxprune.load_recipe(None, {"max_drop": 0.05, "search.trials": trials})
    try:
        return onnxprune.search(MODELS / "lenet300.onnx", feeds(), output, recipe)
    except onnxprune.DataError as error:
        print(f"the data do not fit: {error}")
        raise


if __name__ == "__main__":
    main(Path("runs") / "own-data")
