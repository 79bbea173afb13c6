"""Models that torch itself exports, by both exporters: the bridge gives back what torch computes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from onnxprune.finetune.bridge import to_torch, write_back


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.down, self.head = nn.Conv2d(8, 16, 1, stride=2), nn.Linear(16, 10)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.b(functional.relu(self.a(x))))
        return self.head(self.down(x).mean((2, 3)))


class Mobile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 3, stride=2, padding=1), nn.Hardswish(),
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.ReLU6(), nn.Conv2d(12, 16, 1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


class Vision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, stride=8)
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.places
        q, k, v = self.qkv(self.norm(x)).reshape(x.shape[0], 17, 3, 2, 8).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1)
        x = x + self.out((scores @ v).transpose(1, 2).reshape(x.shape))
        return self.head(functional.gelu(x[:, 0]))


class Recurrent(nn.Module):
    def __init__(self, kind) -> None:
        super().__init__()
        self.cell = kind(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Up(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        skip = functional.relu(self.a(x))
        deep = functional.relu(self.b(functional.max_pool2d(skip, 2)))
        wide = functional.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False)
        return self.out(torch.cat((skip, self.up(deep) + wide), 1))


NETS = {
    "resnet": (Residual, (3, 32, 32)),
    "mobilenet": (Mobile, (3, 32, 32)),
    "vit": (Vision, (3, 32, 32)),
    "lstm": (lambda: Recurrent(nn.LSTM), (7, 6)),
    "gru": (lambda: Recurrent(nn.GRU), (7, 6)),
    "unet": (Up, (3, 16, 16)),
}


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_the_round_trip(name: str, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, shape = NETS[name]
    net = make().eval()
    with torch.no_grad():  # equal tensors would be merged by the exporter
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    path = tmp_path / "net.onnx"
    options = (
        {"dynamic_shapes": ({0: torch.export.Dim("N")},)}
        if dynamo
        else {"dynamic_axes": {"x": {0: "N"}}, "opset_version": 17}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.randn(2, *shape),), str(path), input_names=["x"], output_names=["y"],
            dynamo=dynamo, verbose=False, external_data=False, **options,
        )  # fmt: skip
    module = to_torch(path)
    for batch in (1, 5):
        x = torch.randn(batch, *shape)
        torch.testing.assert_close(module(x), net(x), rtol=1e-4, atol=1e-5)
    # Every weight is trained, but for the scalars; a step in torch and one here agree.
    proto = onnx.load(path)
    floats = [t for t in proto.graph.initializer if t.data_type == 1 and np.prod(t.dims) > 1]
    held = set(module.weights) | set(module.float_buffers)
    assert {t.name for t in floats} <= held
    trained = sum(w.numel() for w in module.weights.values())
    assert trained >= sum(p.numel() for p in net.parameters()) * 0.99 - 32
    with torch.no_grad():
        for weight in module.weights.values():
            weight.mul_(1.25)
    assert set(write_back(proto, module)) <= set(module.weights)
    x = torch.randn(3, *shape)
    [theirs] = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(module(x).detach().numpy(), theirs, rtol=1e-3, atol=1e-4)
    assert [numpy_helper.to_array(t).shape for t in proto.graph.initializer]
