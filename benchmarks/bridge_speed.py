"""Forward and backward of the bridge's modules beside the same networks written in torch.

    python benchmarks/bridge_speed.py [--device cpu|cuda] [--batch 128] [--rounds 15] [--compile]

LeNet-5 and ResNet-20 are written as torch modules, exported to ONNX and read back. The two (and the
bridge's module under ``torch.compile`` if asked) take turns within one run, so that whatever else
the machine does hits all of them; the ratio of medians is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import record
import torch
from torch import nn
from torch.nn import functional

from onnxprune.finetune.bridge import to_torch

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1.3


class LeNet5(nn.Module):
    """LeNet-5 as Caffe has it (20-50-500-10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(N, 1, 28, 28)`` to scores."""
        x = functional.max_pool2d(self.conv1(x), 2)
        x = functional.max_pool2d(self.conv2(x), 2).flatten(1)
        return self.fc2(functional.relu(self.fc1(x)))


class Block(nn.Module):
    """Two convolutions and a shortcut that pads channels, as ResNet-20 for CIFAR-10 has it."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1)
        self.stride, self.more = stride, (after - before) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images to images; batch norm is folded, as it is in an exported model."""
        y = self.conv2(functional.relu(self.conv1(x)))
        if self.more:
            x = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more)
            )
        return functional.relu(x + y)


class ResNet20(nn.Module):
    """ResNet-20 for 32 x 32 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        blocks, before = [], 16
        for after in (16, 32, 64):
            for index in range(3):
                blocks.append(Block(before, after, 2 if index == 0 and after > 16 else 1))
                before = after
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``(N, 3, 32, 32)`` to scores."""
        return self.head(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LeNet-5": (LeNet5, (1, 28, 28)),
    "ResNet-20": (ResNet20, (3, 32, 32)),
}


def step(module: nn.Module, x: torch.Tensor) -> Callable[[], float]:
    """One forward and backward pass; seconds."""

    def run() -> float:
        module.zero_grad(set_to_none=True)
        if x.is_cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        module(x).square().sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return run


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each contender, their rounds interleaved."""
    make, shape = NETS[name]
    torch.manual_seed(0)
    net = make().eval()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        torch.onnx.export(
            net, (torch.zeros(2, *shape),), str(path), input_names=["x"], dynamo=False,
            opset_version=17, dynamic_axes={"x": {0: "N"}},
        )  # fmt: skip
        bridged = to_torch(path)
    x = torch.randn(options.batch, *shape).to(options.device)
    net, bridged = net.to(options.device), bridged.to(options.device)
    torch.testing.assert_close(bridged(x), net(x), rtol=1e-3, atol=1e-4)
    contenders = {"native": step(net, x), "bridge": step(bridged, x)}
    if options.compile:
        contenders["bridge, compiled"] = step(torch.compile(bridged), x)  # type: ignore[arg-type]
        contenders["native, compiled"] = step(torch.compile(net), x)  # type: ignore[arg-type]
    for run in contenders.values():
        run()
        run()
    times: dict[str, list[float]] = {key: [] for key in contenders}
    for _ in range(options.rounds):
        for key, run in contenders.items():
            times[key].append(run())
    medians = {key: statistics.median(values) for key, values in times.items()}
    best = {key: min(values) for key, values in times.items()}
    return {
        "model": name,
        "device": options.device,
        "batch": options.batch,
        "threads": torch.get_num_threads(),
        "median_ms": {key: round(value * 1000, 3) for key, value in medians.items()},
        "ratio_of_medians": {k: round(v / medians["native"], 3) for k, v in medians.items()},
        "ratio_of_minima": {k: round(v / best["native"], 3) for k, v in best.items()},
    }


def tables(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures as they are shown."""
    rows = [
        {
            "network": result["model"],
            "on": f"{result['device']}, {result['threads']} thread, batches of {result['batch']}",
            "module": key,
            "median_ms": value,
            "of_medians": result["ratio_of_medians"][key],
            "of_minima": result["ratio_of_minima"][key],
        }
        for result in results
        for key, value in result["median_ms"].items()
    ]
    forms = {"network": "{}", "on": "{}", "module": "{}", "median_ms": "median ms|{:.1f}"}
    forms |= {"of_medians": "/ native|{:.3f}", "of_minima": "/ native, least times|{:.3f}"}
    note = f"The bridge may take at most {LIMIT} of native."
    return [record.table("Forward and backward", rows, forms, note)]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [measure(name, options) for name in NETS]
    print(f"{'model':10} {'contender':18} {'ms':>9} {'/ native':>9} {'of minima':>10}")
    for result in results:
        for key, value in result["median_ms"].items():
            ratio, least = result["ratio_of_medians"][key], result["ratio_of_minima"][key]
            print(f"{result['model']:10} {key:18} {value:9.2f} {ratio:9.3f} {least:10.3f}")
    print(f"limit for the bridge: {LIMIT} of native")
    record.write(__file__, tables(results), results)


if __name__ == "__main__":
    main()
