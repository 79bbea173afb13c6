"""Six real models for ``one_shot.py``, each with inputs to calibrate on and others to be measured on."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import signal

from onnxprune.runtime import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

SHARED = Path(__file__).parents[2] / "shared"
MODELS = SHARED / "models"


@dataclass(frozen=True)
class Case:
    """One model and its data.

    Attributes:
        path: of the model.
        calibration: arrays by input, first axis = samples; the only data that pruning sees.
        held_out: other samples.
        labels: class numbers of those, or None: fidelity to the dense outputs is measured then.
        inputs: what the data are, in a sentence.
        measured: a value inside the model to measure in place of its outputs.
    """

    path: Path
    calibration: Arrays
    held_out: Arrays
    inputs: str
    labels: NDArray[Any] | None = None
    measured: str | None = None


def _cifar(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with np.load(SHARED / "data" / name) as data:
        return data["x"], data["y"]


def _scaled(x: NDArray[np.uint8], mean: list[float], deviation: list[float]) -> NDArray[np.float32]:
    scaled = (x.astype(np.float32) / 255 - np.array(mean, np.float32)) / np.array(
        deviation, np.float32
    )
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _train_images(count: int) -> NDArray[np.uint8]:
    x, _ = _cifar("cifar10_train_20k.npz")
    return x[np.random.default_rng(0).permutation(len(x))[:count]]


def resnet20() -> Case:
    """A residual CNN on CIFAR-10, with labels to measure by."""
    norm = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    x, y = _cifar("cifar10_test_5k.npz")
    return Case(
        MODELS / "cifar10_resnet20_folded.onnx",
        {"input": _scaled(_train_images(512), *norm)},
        {"input": _scaled(x, *norm)},
        "512 training and 5,000 test images of CIFAR-10",
        y,
    )


def vit() -> Case:
    """A vision transformer."""
    norm = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
    return Case(
        MODELS / "cifar10_vit_ibp_3_3_8.onnx",
        {"input": _scaled(_train_images(512), *norm)},
        {"input": _scaled(_cifar("cifar10_test_5k.npz")[0][:1000], *norm)},
        "512 training and 1,000 test images of CIFAR-10",
    )


def _voices(seconds: int, seed: int) -> NDArray[np.float64]:
    """Something like speech at 16 kHz: a gliding pitch with harmonics, formants, pauses, and noise."""
    rng, rate = np.random.default_rng(seed), 16000
    time = np.arange(seconds * rate) / rate
    knots = np.linspace(0, seconds, 4 * seconds)
    pitch = np.interp(time, knots, rng.uniform(90, 260, len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(n * phase) / n for n in range(1, 25))
    formants = np.interp(time, knots, rng.uniform(300, 2500, len(knots)))
    voice = voice * (1 + np.cos(2 * np.pi * formants * time))
    loudness = np.interp(time, knots, np.maximum(0, rng.normal(0.4, 0.5, len(knots))))
    noise = signal.lfilter([1], [1, -0.9], rng.standard_normal(len(time))) * rng.uniform(0.02, 0.2)
    return 0.1 * (voice * loudness + noise)


def dtln() -> Case:
    """An LSTM that suppresses noise, frame by frame, with its state as an input."""
    path = MODELS / "dtln_1_lstm.onnx"
    return Case(
        path,
        _dtln_frames(path, 512, seed=0),
        _dtln_frames(path, 256, seed=1),
        "512 and 256 frames of seeded speech-like sound (gliding harmonics, formants, pauses, coloured "
        "noise), with the states that the dense model reaches on the way",
    )


def _dtln_frames(path: Path, count: int, seed: int) -> Arrays:
    sound = _voices(8, seed)
    session = Session(path, threads=1)
    state = np.zeros((1, 2, 128, 2), np.float32)
    frames, states = [], []
    for start in range(0, len(sound) - 512, 128):
        spectrum = np.abs(np.fft.rfft(sound[start : start + 512])).astype(np.float32)[None, None]
        frames.append(spectrum[0])
        states.append(state[0])
        _, state = session.run({"input_2": spectrum, "input_3": state})
    step = len(frames) // count
    picked = slice(0, step * count, step)
    return {"input_2": np.stack(frames[picked]), "input_3": np.stack(states[picked])}


def fastestdet() -> Case:
    """A depthwise detector."""

    def mosaics(x: NDArray[np.uint8], count: int) -> Arrays:
        tiles = x[: count * 121].reshape(count, 11, 11, 32, 32, 3)
        images = tiles.transpose(0, 5, 1, 3, 2, 4).reshape(count, 3, 352, 352)
        return {"input.1": images.astype(np.float32) / 255}

    return Case(
        MODELS / "fastestdet.onnx",
        mosaics(_train_images(24 * 121), 24),
        mosaics(_cifar("cifar10_test_5k.npz")[0], 24),
        "mosaics of 11 x 11 images of CIFAR-10, 24 of the training set and 24 of the test set",
    )


def unet() -> Case:
    """A U-Net with transposed convolutions."""

    def images(x: NDArray[np.uint8]) -> Arrays:
        rows = np.linspace(0, 31, 31).round().astype(int)
        columns = np.linspace(0, 31, 47).round().astype(int)
        sized = x[:, rows][:, :, columns].astype(np.float32).transpose(0, 3, 1, 2) / 255
        mask = (sized.mean(axis=1, keepdims=True) > sized.mean(axis=(1, 2, 3), keepdims=True)) * 1.0
        return {"input": np.concatenate([sized, mask], axis=1).astype(np.float32)}

    return Case(
        MODELS / "carvana_unet_upsample_small.onnx",
        images(_train_images(64)),
        images(_cifar("cifar10_test_5k.npz")[0][:128]),
        "64 training and 128 test images of CIFAR-10 at 31 x 47, their brighter half as fourth channel; "
        "measured on the class scores of each pixel, since the output counts pixels",
        measured="123",
    )


def magika() -> Case:
    """A network that tells file types from bytes."""
    folders = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")]
    files = sorted(
        file
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and file.suffix not in {".pyc", ""}
    )
    by_suffix: dict[str, list[Path]] = {}
    for file in files:
        by_suffix.setdefault(file.suffix, []).append(file)
    rng = np.random.default_rng(0)
    picked = [group[n] for group in by_suffix.values() for n in rng.permutation(len(group))[:24]]
    rows = np.stack([_magika_bytes(picked[n]) for n in rng.permutation(len(picked))[:256]])
    return Case(
        MODELS / "magika_standard_v2_1.onnx",
        {"bytes": rows[:128]},
        {"bytes": rows[128:]},
        "first and last 2,048 bytes of files of a Python installation, up to 24 of each suffix, padded "
        "with 256: 128 files to calibrate on, others to measure on",
    )


def _magika_bytes(file: Path) -> NDArray[np.int32]:
    content = file.read_bytes().strip()
    row = np.full(4096, 256, np.int32)
    first, last = content[:2048], content[-2048:]
    row[: len(first)] = np.frombuffer(first, np.uint8)
    row[4096 - len(last) :] = np.frombuffer(last, np.uint8)
    return row


CASES: dict[str, Callable[[], Case]] = {
    "resnet20": resnet20,
    "vit": vit,
    "dtln": dtln,
    "fastestdet": fastestdet,
    "unet": unet,
    "magika": magika,
}
