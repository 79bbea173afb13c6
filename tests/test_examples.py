"""The examples run as they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_a_test_for_each_example() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'load("{path.stem}")' in text


def test_compress_a_model(tmp_path: Path, capsys) -> None:
    report = load("compress_a_model").main(tmp_path / "run", trials=6)
    assert report.totals.compression_rate > 1
    assert "points lost" in capsys.readouterr().out


def test_models_in_memory(models_folder: Path) -> None:
    size = load("models_in_memory").main()
    assert size < (models_folder / "lenet5.onnx").stat().st_size / 3


def test_your_own_data(tmp_path: Path) -> None:
    report = load("your_own_data").main(tmp_path / "run", trials=4)
    assert report.quality.metric == "top1"


def test_your_own_agent(capsys) -> None:
    drop = load("your_own_agent").main(episodes=6)
    assert -0.01 < drop < 0.95
    assert capsys.readouterr().out.count("keeps") == 4


def test_rules_by_layer() -> None:
    report = load("rules_by_layer").main()
    found = {w.name: (round(w.sparsity, 2), w.pattern) for w in report.weights}
    assert found == {
        "conv1.weight": (0.0, "unstructured"),
        "conv2.weight": (0.7, "unstructured"),
        "fc1.weight": (0.5, "2:4"),
    }
