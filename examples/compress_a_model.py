"""The main job from Python: a run folder, a typed report, progress as you like it."""

from pathlib import Path

import onnxprune

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"


def progress(step: str, done: int, total: int) -> None:
    """Called after every trial of the search, and in all other steps."""
    if done == total:
        print(f"{step}: {total} done")


def main(output: Path, trials: int = 100) -> onnxprune.Report:
    """Compress LeNet-5, and say what came of it."""
    recipe = onnxprune.load_recipe(None, {"max_drop": 0.01, "search.trials": trials})
    report = onnxprune.compress(
        MODELS / "lenet5.onnx",
        MODELS / "lenet5-data.npz",
        output,
        recipe,
        progress=progress,
    )
    assert report.totals is not None
    assert report.quality is not None
    low, high = report.quality.drop_ci95
    print(f"{report.totals.compression_rate:.1f} x fewer weights")
    print(f"{100 * report.quality.drop:.2f} points lost ({100 * low:.2f} to {100 * high:.2f})")
    print("every target met" if report.succeeded else "a target was missed")
    return report


if __name__ == "__main__":
    main(Path("runs") / "example")
