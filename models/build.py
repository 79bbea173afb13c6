"""Train the models that this folder ships, and write the data to compress them by.

    python models/build.py --mnist FOLDER [--only lenet300|lenet5] [--seed 0]

``FOLDER`` holds ``mnist_train.npz`` and ``mnist_test.npz``, each with ``x`` uint8 ``(N, 28, 28)`` and
``y`` uint8 ``(N,)``, as MNIST orders them. 4,000 training images are set apart by the seed; the
models never see them, and they become the data that onnxprune calibrates and searches with. The
test set is used once, to print the accuracy of what was trained.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    import onnx_ir as ir

HERE = Path(__file__).parent
SET_APART = 4000
EPOCHS = {"lenet300": 60, "lenet5": 25}
BATCH = 128
SHIFT = 2  # pixels; images move by up to so many while training


class Pixels(nn.Module):
    """Bytes to numbers from 0 to 1, so that the models take images as MNIST stores them."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scale uint8 ``(N, 1, 28, 28)``."""
        return image.to(torch.float32) * (1.0 / 255.0)


def lenet300() -> nn.Sequential:
    """LeNet-300-100 (LeCun et al. 1998): 266,200 weights, biases not counted."""
    layers = {
        "pixels": Pixels(),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(784, 300),
        "relu1": nn.ReLU(),
        "fc2": nn.Linear(300, 100),
        "relu2": nn.ReLU(),
        "fc3": nn.Linear(100, 10),
    }
    return nn.Sequential(OrderedDict(layers))


def lenet5() -> nn.Sequential:
    """LeNet-5 as Caffe has it (20-50-500-10): 430,500 weights, biases not counted."""
    layers = {
        "pixels": Pixels(),
        "conv1": nn.Conv2d(1, 20, 5),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(20, 50, 5),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(800, 500),
        "relu1": nn.ReLU(),
        "fc2": nn.Linear(500, 10),
    }
    return nn.Sequential(OrderedDict(layers))


MODELS = {"lenet300": lenet300, "lenet5": lenet5}


def shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images ``(N, 1, 28, 28)``, each moved by up to ``SHIFT`` pixels both ways; zeros come in."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (SHIFT,) * 4)
    down, right = torch.randint(0, 2 * SHIFT + 1, (2, count, 1), generator=generator)
    rows = (down + torch.arange(height))[:, :, None]
    columns = (right + torch.arange(width))[:, None, :]
    return padded[torch.arange(count)[:, None, None], 0, rows, columns][:, None]


def train(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, seed: int
) -> None:
    """Adam at 1e-3 on a cosine to zero, cross-entropy, batches of ``BATCH`` shifted images."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for batch in order.split(BATCH):
            if len(batch) < BATCH:
                continue
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(shifted(images[batch], generator)), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        print(
            f"  epoch {epoch + 1}/{epochs}: loss {total / (len(images) // BATCH):.4f}", flush=True
        )


def export(model: nn.Module, path: Path) -> None:
    """Write the model with a dynamic batch, ``image`` uint8 ``(N, 1, 28, 28)`` to ``logits``."""
    model.eval()
    example = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("N")},),
        verbose=False,
    )
    assert program is not None
    _forget_the_exporter(program.model)
    program.save(path)


def _forget_the_exporter(model: ir.Model) -> None:
    """Drop what torch notes about its own tracing: it doubles a small model's overhead."""
    for graph in model.graphs():
        graph.metadata_props.clear()
        for value in [*graph.inputs, *graph.initializers.values()]:
            value.metadata_props.clear()
        for node in graph:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that onnxruntime labels right."""
    [logits] = ort.InferenceSession(path).run(None, {"image": images})
    return float((np.asarray(logits).argmax(axis=1) == labels).mean())


def write_data(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Images under the models' input name, labels beside them."""
    np.savez_compressed(path, image=images, labels=labels.astype(np.int64))


def main() -> None:
    """Build everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, required=True, help="folder with the two .npz files")
    parser.add_argument(
        "--only", choices=sorted(MODELS), help="build one model; both when left out"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    with np.load(options.mnist / "mnist_train.npz") as arrays:
        images, labels = arrays["x"][:, None], arrays["y"]
    with np.load(options.mnist / "mnist_test.npz") as arrays:
        test_images, test_labels = arrays["x"][:, None], arrays["y"]
    order = np.random.default_rng(options.seed).permutation(len(images))
    apart, ours = np.sort(order[:SET_APART]), np.sort(order[SET_APART:])
    write_data(options.out / "mnist-test.npz", test_images, test_labels)
    for name in [options.only] if options.only else MODELS:
        print(name, flush=True)
        torch.manual_seed(options.seed)
        model = MODELS[name]()
        train(
            model,
            torch.from_numpy(images[ours]),
            torch.from_numpy(labels[ours]).long(),
            EPOCHS[name],
            options.seed,
        )
        path = options.out / f"{name}.onnx"
        export(model, path)
        write_data(options.out / f"{name}-data.npz", images[apart], labels[apart])
        print(f"  MNIST test set: {accuracy(path, test_images, test_labels):.2%}", flush=True)


if __name__ == "__main__":
    main()
