"""Training: masks at every step, resuming, several processes, losses, divergence, the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from onnxprune.data import Dataset
from onnxprune.errors import DataError, RecipeError, RunError, TrainingError
from onnxprune.finetune.batches import Batches, find_augment
from onnxprune.finetune.bridge import to_torch
from onnxprune.finetune.checkpoint import load_moments, save_checkpoint, save_moments
from onnxprune.finetune.masks import Shape
from onnxprune.finetune.pruner import Goal
from onnxprune.finetune.run import finetune
from onnxprune.finetune.schedule import density_at, phases, rate_at
from onnxprune.finetune.teacher import Teacher
from onnxprune.finetune.train import Score, Trainer
from onnxprune.model_io import load_model
from onnxprune.recipe import DataSection, FinetuneSection, Recipe, load_recipe
from onnxprune.rules import Rule
from passes.patterns import parse_pattern
from passes.weights import collect_weights


def section(**changes) -> FinetuneSection:
    base = {
        "phases": {"sparsify": 1, "prune": 2, "recover": 1},
        "optimizer": {"batch": 32},
        "prune_every": 3,
    }
    return FinetuneSection.model_validate({**base, **changes})


def recipe(target: str | None = "8x", **changes) -> Recipe:
    return Recipe(target=target, finetune=section(**changes), max_drop=1.0)


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def nonzeros(path: Path) -> int:
    return sum(
        int(np.count_nonzero(a)) for n, a in weights_of(path).items() if n.endswith("weight")
    )


OPTIMIZERS = [
    {"name": "adam", "batch": 32},
    {"name": "sgd", "batch": 32, "momentum": 0.9, "learning_rate": 0.01},
    {"name": "sgd", "batch": 32, "momentum": 0.0, "learning_rate": 0.01},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", ["smoothed", "proximal"])
def test_masks_are_exact_at_every_step(mlp: Path, optimizer, form: str) -> None:
    """Also for weights that the optimizer still carries momentum for."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 12)).astype(np.float32)
    data = Dataset({"x": x}, rng.integers(0, 4, 128))
    module, seen = to_torch(mlp), []
    settings = section(optimizer=optimizer, penalty={"form": form})
    names = ("fc0.weight", "fc1.weight")

    def progress(phase: str, done: int, total: int) -> None:
        masks = trainer.pruner.masks
        for name in names:
            dropped = module.weights[name].detach()[~masks.by_name[name]]
            assert not dropped.numpy().view(np.uint32).any()  # +0.0, to the bit
        seen.append((phase, masks.kept))

    trainer = Trainer(
        module, None, Batches(data, 32, 0), lambda _: Score(0.0), settings, Goal(keep=32), names,
        progress=progress,
    )  # fmt: skip
    trainer.run()
    assert len(seen) == 4 * 4
    kept = [count for _, count in seen]
    assert kept == sorted(kept, reverse=True)
    assert [count for phase, count in seen if phase == "recover"] == [32] * 4


@pytest.mark.parametrize(
    "pattern", ["2:4", "1:4", "2x2", "4x1", "channel", "balanced:4x6", "segments:4x6", "burst:8x24"]
)
@pytest.mark.parametrize("by_plan", [False, True])
def test_masks_keep_their_pattern_at_every_step(mlp: Path, pattern: str, by_plan: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 12)).astype(np.float32)
    data = Dataset({"x": x}, rng.integers(0, 4, 128))
    module, parsed = to_torch(mlp), parse_pattern(pattern)
    collected = {weight.name: weight for weight in collect_weights(load_model(mlp)).weights}
    shapes = {name: Shape(weight.layout, parsed) for name, weight in collected.items()}
    goal = Goal(by_weight={"fc0.weight": 60, "fc1.weight": 20}) if by_plan else Goal(keep=80)
    seen = []

    def progress(phase: str, done: int, total: int) -> None:
        masks = trainer.pruner.masks
        seen.append(masks.kept)
        if phase != "sparsify":
            for name, shape in shapes.items():
                assert parsed.obeys(shape.layout.matrices(masks.by_name[name].numpy())), name

    trainer = Trainer(
        module, None, Batches(data, 32, 0), lambda _: Score(0.0), section(), goal, tuple(shapes),
        shapes=shapes, progress=progress,
    )  # fmt: skip
    trainer.run()
    assert seen == sorted(seen, reverse=True)
    exactly = {"2:4": 80, "1:4": 64}.get(
        pattern
    )  # 1:4 lets a quarter of 256 stay; cells are kept whole
    assert seen[-1] == exactly if exactly else 64 <= seen[-1] <= 80


def test_a_pattern_and_its_exceptions_are_trained_to(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    """2:4 for all weights but one, which a rule leaves without a pattern."""
    out = tmp_path / "out.onnx"
    settings = recipe("2.5x", pattern="2:4").model_copy(
        update={"rules": (Rule(match="fc1.weight", pattern="unstructured"),)}
    )
    report = finetune(mlp, mlp_data, out, settings)
    collected = {weight.name: weight for weight in collect_weights(load_model(out)).weights}
    masks = {name: weight.matrices() != 0 for name, weight in collected.items()}
    assert parse_pattern("2:4").obeys(masks["fc0.weight"])
    assert not parse_pattern("2:4").obeys(masks["fc1.weight"])
    assert [weight.pattern for weight in report.weights or ()] == ["2:4", "unstructured"]
    with pytest.raises(RecipeError, match="keeps no pattern; give a strength"):
        finetune(
            mlp, mlp_data, out, recipe("2.5x", pattern="2:4", penalty={"prune_strength": "auto"})
        )


def test_the_graph_stays_and_the_target_is_met_exactly(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    report = finetune(mlp, mlp_data, out, recipe())
    assert nonzeros(out) == 256 // 8
    assert report.target is not None
    assert report.target.met
    before, after = onnx.load(mlp), onnx.load(out)
    for model in (before, after):
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    assert after == before
    assert not out.with_name("out.onnx.checkpoint").exists()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / f"{i}.onnx" for i in range(3)]
    for out, seed in zip(outs, (0, 0, 1), strict=True):
        finetune(mlp, mlp_data, out, recipe().model_copy(update={"seed": seed}))
    assert outs[0].read_bytes() == outs[1].read_bytes() != outs[2].read_bytes()


def test_training_recovers_what_pruning_lost(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    """A pruned model keeps its zeros, and its held-out score rises."""
    from onnxprune.api import prune

    pruned, out = tmp_path / "pruned.onnx", tmp_path / "out.onnx"
    prune(mlp, pruned, sparsity=0.7)
    settings = recipe(
        None,
        phases={"sparsify": 0, "prune": 0, "recover": 30},
        optimizer={"learning_rate": 0.02, "batch": 32},
    )
    report = finetune(pruned, mlp_data, out, settings)
    assert report.quality is not None
    assert report.quality.compressed > report.quality.baseline + 0.05
    assert "is pruned already" in report.warnings[0]
    taught = finetune(pruned, mlp_data, tmp_path / "taught.onnx", settings, teacher=mlp)
    assert taught.quality is not None
    assert taught.quality.compressed > report.quality.baseline + 0.1
    assert not taught.warnings
    for name, array in weights_of(pruned).items():
        if name.endswith("weight"):
            assert not weights_of(out)[name][array == 0].any()


def test_a_plan_sets_each_weight(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out.onnx"
    plan.write_text(json.dumps({"sparsity": {"fc0.weight": 0.75}}))
    finetune(mlp, mlp_data, out, recipe(None), plan=plan)
    counts = {n: int(np.count_nonzero(a)) for n, a in weights_of(out).items()}
    assert counts["fc0.weight"] == 48
    assert counts["fc1.weight"] == 64
    with pytest.raises(RecipeError, match="either a target or a plan"):
        finetune(mlp, mlp_data, out, recipe("4x"), plan=plan)


@pytest.mark.parametrize("saliency", ["magnitude", "lamp", "fisher"])
@pytest.mark.parametrize("strength", [1e-5, "auto"])
def test_every_way_to_draw_masks_reaches_the_goal(
    mlp: Path, mlp_data: Path, tmp_path: Path, saliency: str, strength
) -> None:
    out = tmp_path / "out.onnx"
    changed = recipe(
        "16x", saliency=saliency, schedule="cubic", cycles=2, penalty={"prune_strength": strength}
    )
    finetune(mlp, mlp_data, out, changed)
    assert nonzeros(out) == 16


def test_without_labels_the_dense_model_teaches(mlp: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    out = tmp_path / "out.onnx"
    report = finetune(mlp, tmp_path / "x.npz", out, recipe("2x", phases={"recover": 15}))
    assert report.quality is not None
    assert report.quality.metric == "agreement"
    assert report.quality.compressed > 0.7
    with pytest.raises(DataError, match="loss 'mse' needs labels"):
        finetune(mlp, tmp_path / "x.npz", out, recipe(loss={"name": "mse"}))


def test_the_users_own_loss_and_augmentation(
    mlp: Path, mlp_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "def loss(outputs, labels):\n    return outputs[0].square().mean()\n"
        "def augment(inputs, generator):\n    return {n: v * 2 for n, v in inputs.items()}\n"
        "def score(outputs, labels):\n    return -(outputs[0] ** 2).mean(axis=1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "out.onnx"
    settings = recipe(
        None,
        loss={"name": "mine:loss", "distill": 0},
        augment="mine:augment",
        phases={"sparsify": 0, "recover": 20},
        optimizer={"learning_rate": 0.05, "batch": 32},
    ).model_copy(update={"data": DataSection(metric="mine:score")})
    finetune(mlp, mlp_data, out, settings)
    x = np.random.default_rng(0).standard_normal((50, 12)).astype(np.float32)
    sizes = [np.square(ort.InferenceSession(p).run(None, {"x": x})[0]).mean() for p in (mlp, out)]
    assert sizes[1] < sizes[0] / 10
    with pytest.raises(RecipeError, match="cannot load loss 'mine:nothing'"):
        finetune(mlp, mlp_data, out, recipe(None, loss={"name": "mine:nothing"}))


def test_divergence_stops_with_a_sentence(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    wild = recipe(
        None,
        optimizer={"name": "sgd", "learning_rate": 1e6, "batch": 32},
        loss={"distill": 0},
        phases={"sparsify": 0, "recover": 20},
        checkpoint_every=1,
    )
    with pytest.raises(TrainingError, match=r"diverged at step \d+.*last good checkpoint is"):
        finetune(mlp, mlp_data, out, wild)
    assert not out.exists()
    assert out.with_name("out.onnx.checkpoint").exists()


def test_early_stopping_takes_the_best_epoch(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    settings = recipe(
        None, phases={"sparsify": 0, "recover": 60}, patience=3, optimizer={"learning_rate": 0.02}
    )
    report = finetune(mlp, mlp_data, tmp_path / "out.onnx", settings)
    assert "stopped early: validation did not improve" in report.warnings


def test_bfloat16_trains(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    finetune(mlp, mlp_data, out, recipe(optimizer={"precision": "bfloat16", "batch": 32}))
    assert nonzeros(out) == 32
    assert weights_of(out)["fc0.weight"].dtype == np.float32


KILLED = """
import os, signal, sys
from onnxprune.finetune.run import finetune
from onnxprune.recipe import load_recipe
from pathlib import Path
model, data, out, path, at = sys.argv[1:]
steps = 0
def progress(phase, done, total):
    global steps
    steps += 1
    if steps == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
finetune(model, data, out, load_recipe(Path(path), {}), progress=progress)
"""


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_resuming_after_a_kill_gives_the_same_weights(
    mlp: Path, mlp_data: Path, tmp_path: Path, optimizer: str
) -> None:
    settings = recipe(optimizer={"name": optimizer, "batch": 32}, checkpoint_every=7, cycles=2)
    path = tmp_path / "recipe.yaml"
    path.write_text(settings.to_yaml())
    whole, out = tmp_path / "whole.onnx", tmp_path / "out.onnx"
    finetune(mlp, mlp_data, whole, settings)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, mlp, mlp_data, out, path, "52"], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    other = recipe(optimizer={"name": optimizer, "batch": 16}, checkpoint_every=7, cycles=2)
    with pytest.raises(RunError, match="another model, data or recipe"):
        finetune(mlp, mlp_data, out, other, resume=True)
    finetune(mlp, mlp_data, out, settings, resume=True)
    assert out.read_bytes() == whole.read_bytes()
    with pytest.raises(RunError, match="no checkpoint"):
        finetune(mlp, mlp_data, out, settings, resume=True)


def test_a_checkpoint_of_another_version_is_refused(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out.onnx.checkpoint"
    torch.save({"format": 1, "identity": "", "state": {}}, path)
    with pytest.raises(RunError, match="is no checkpoint of this version; delete it"):
        finetune(mlp, mlp_data, tmp_path / "out.onnx", recipe(), resume=True)


def test_a_damaged_checkpoint_is_said_so(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    out.with_name("out.onnx.checkpoint").write_bytes(b"not a checkpoint")
    with pytest.raises(RunError, match="is damaged"):
        finetune(mlp, mlp_data, out, recipe(), resume=True)


WORKER = """
import sys, torch
from pathlib import Path
from onnxprune.finetune import train
from onnxprune.finetune.run import finetune
from onnxprune.recipe import load_recipe
model, data, out, path, folder = sys.argv[1:]
run = train.Trainer.run
def watched(self):
    result = run(self)
    rank = torch.distributed.get_rank()
    torch.save(dict(self.pruner.masks.by_name), Path(folder) / f"{rank}.pt")
    return result
train.Trainer.run = watched
finetune(model, data, out, load_recipe(Path(path), {}))
"""


def test_two_processes_draw_the_same_masks(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    settings = recipe()
    path, out = tmp_path / "recipe.yaml", tmp_path / "out.onnx"
    path.write_text(settings.to_yaml())
    (tmp_path / "worker.py").write_text(textwrap.dedent(WORKER))
    port = str(20_000 + os.getpid() % 20_000)
    processes = [
        subprocess.Popen(
            [sys.executable, tmp_path / "worker.py", mlp, mlp_data, out, path, tmp_path],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    masks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert masks[0].keys() == masks[1].keys()
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert sum(int(mask.sum()) for mask in masks[0].values()) == 32
    assert nonzeros(out) == 32


def test_batches_depend_on_seed_and_step_alone() -> None:
    images = np.arange(2 * 6 * 6 * 8, dtype=np.float32).reshape(8, 2, 6, 6)
    data = Dataset({"x": images}, np.arange(8))
    one, two = (Batches(data, 4, 3, augment=find_augment("shift:1+flip")) for _ in range(2))
    for step in (5, 0, 3, 2):
        torch.testing.assert_close(one.batch(step).inputs["x"], two.batch(step).inputs["x"])
    assert not torch.equal(one.batch(0).labels, one.batch(2).labels)
    halves = [Batches(data, 4, 3, rank=rank, ranks=2).batch(1).labels for rank in range(2)]
    assert sorted(torch.cat(halves).tolist()) == sorted(one.batch(1).labels.tolist())


def test_shift_moves_pixels_and_zeros_come_in() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1.0
    shift = find_augment("shift:2")
    places = set()
    for seed in range(200):
        moved = shift({"x": image}, torch.Generator().manual_seed(seed))["x"]
        assert float(moved.sum()) == 1.0
        places.add(tuple(moved[0, 0].nonzero()[0].tolist()))
    assert len(places) == 25
    for wrong in ("shift:x", "turn"):
        with pytest.raises(RecipeError):
            find_augment(wrong)


def test_schedules() -> None:
    made = phases({"sparsify": 1, "prune": 2, "recover": 0}, 10, 2)
    assert [(p.name, p.first_step, p.steps, p.cycle) for p in made] == [
        ("sparsify", 0, 10, 0), ("prune", 10, 20, 0), ("sparsify", 30, 10, 1), ("prune", 40, 20, 1),
    ]  # fmt: skip
    assert density_at("cubic", 1.0, 0.2, 0.5) == pytest.approx(0.2 + 0.8 / 8)
    assert density_at("log_linear", 1.0, 0.01, 0.5) == pytest.approx(0.1)
    assert rate_at("cosine", 0.1, 0.0) == 0.1
    assert rate_at("cosine", 0.1, 1.0) == pytest.approx(0)


def test_the_command(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "recipe.yaml", tmp_path / "out.onnx"
    path.write_text(recipe(None).to_yaml())
    command = [sys.executable, "-m", "onnxprune", "finetune", mlp, "--data", mlp_data, "-o", out]
    done = subprocess.run(
        [*command, "--recipe", path, "--target", "4x", "--penalty", "l1", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["totals"]["nonzeros"] == 64
    assert report["methods"]["penalty"] == "l1, smoothed"
    wrong = subprocess.run(
        [*command, "--target", "10kB"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert "compression rate such as 50x" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1


def test_a_recipe_with_a_wrong_value_says_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("finetune: {penalty: {name: l3}}")
    with pytest.raises(RecipeError, match=r"finetune.penalty.name: input should be 'l_half'"):
        load_recipe(path, {})


@pytest.mark.parametrize("count", [96, 70])
def test_a_teacher_says_of_known_samples_what_the_model_says(mlp: Path, count: int) -> None:
    """Also where the last batch of the data is not full."""
    x = np.random.default_rng(0).standard_normal((count, 12)).astype(np.float32)
    dense, data = to_torch(mlp), Dataset({"x": x}, np.zeros(count, np.int64))
    calls = []
    dense.register_forward_hook(lambda *_: calls.append(1))
    same = Batches(data, 32, 0)
    teacher = Teacher(dense, same, torch.device("cpu"))
    for step in range(2 * same.steps_per_epoch):
        batch = same.batch(step)
        torch.testing.assert_close(teacher(batch)[0], dense(batch.inputs).detach())
    assert len(calls) == 2 * same.steps_per_epoch + 3  # ours above, and each sample once

    def double(inputs: dict[str, torch.Tensor], _: torch.Generator) -> dict[str, torch.Tensor]:
        return {"x": inputs["x"] * 2}

    changed = Batches(data, 32, 0, augment=double)
    batch = changed.batch(0)
    torch.testing.assert_close(
        Teacher(dense, changed, torch.device("cpu"))(batch)[0],
        dense({"x": torch.from_numpy(x)[batch.rows] * 2}),
    )


def test_the_last_epoch_that_validation_cannot_tell_from_the_best_is_taken(mlp: Path) -> None:
    """Patience still counts from the highest score."""
    x = np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
    data = Dataset({"x": x}, np.zeros(64, np.int64))
    means = [0.1, 0.99, 0.5, 0.9, 0.8, 0.84, 0.79, 0.7]
    phases = {"sparsify": 1, "prune": 1, "recover": 6}

    def trained(error: float, patience: int | None = None):
        scores = iter(means)
        settings = section(phases=phases, patience=patience)
        return Trainer(
            to_torch(mlp), None, Batches(data, 32, 0), lambda _: Score(next(scores), error),
            settings, Goal(keep=32), ("fc0.weight", "fc1.weight"),
        ).run()  # fmt: skip

    assert trained(0.0).best.number == 4
    assert trained(0.07).best.number == 6
    assert trained(1.0).best.number == 8
    early = trained(0.07, patience=2)
    assert early.stopped_early
    assert [early.best.number, len(early.epochs)] == [6, 6]


def test_a_run_that_patience_ended_is_not_trained_on_when_resumed(
    mlp: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    data = Dataset(
        {"x": rng.standard_normal((128, 12)).astype(np.float32)}, rng.integers(0, 4, 128)
    )
    settings = section(
        phases={"sparsify": 0, "prune": 0, "recover": 9}, patience=1, checkpoint_every=1
    )

    def trainer() -> Trainer:
        scores = iter([0.5, 0.4, *[0.9] * 20])
        return Trainer(
            to_torch(mlp), None, Batches(data, 32, 0), lambda _: Score(next(scores)), settings, Goal(), (),
            checkpoint=tmp_path / "checkpoint", identity="one",
        )  # fmt: skip

    first = trainer().run()
    assert (len(first.epochs), first.stopped_early) == (2, True)
    again = trainer()
    again.resume()
    resumed = again.run()
    assert (len(resumed.epochs), resumed.stopped_early, resumed.best) == (2, True, first.best)


@pytest.mark.parametrize(
    "content",
    [
        {"format": 2, "state": {}},
        {"format": 2, "identity": "Adam", "state": 3},
        {"format": 2, "identity": 3, "state": {}},
        [1],
    ],
)
def test_a_memory_of_an_optimizer_that_is_none_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "optimizer.pt")
    with pytest.raises(RunError):
        load_moments(tmp_path / "optimizer.pt", torch.nn.Linear(2, 2), None)


def test_of_an_optimizers_memory_only_what_fits_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.pt"

    def stepped(size: int) -> tuple[torch.nn.Linear, torch.optim.Adam]:
        module = torch.nn.Linear(3, size)
        optimizer = torch.optim.Adam(module.parameters())
        module(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        return module, optimizer

    module, optimizer = stepped(4)
    save_moments(path, module, optimizer)
    same = torch.nn.Linear(3, 4)
    fresh = torch.optim.Adam(same.parameters())
    load_moments(path, same, fresh)
    for name, parameter in same.named_parameters():
        known = optimizer.state[dict(module.named_parameters())[name]]
        assert {key: value.tolist() for key, value in fresh.state[parameter].items()} == {
            key: value.tolist() for key, value in known.items()
        }
    other = torch.nn.Linear(3, 5)
    fresh = torch.optim.Adam(other.parameters())
    load_moments(path, other, fresh)
    assert not fresh.state
    sgd = torch.optim.SGD(same.parameters(), momentum=0.9)
    load_moments(path, same, sgd)
    assert not sgd.state
    for wrong in (
        {"exp_avg": torch.tensor(1.0)},
        {"exp_avg": torch.ones(4, 3, dtype=torch.int64)},
        {"exp_avg": 3},
        3,
    ):
        save_checkpoint(path, "Adam", {"weight": wrong})
        fresh = torch.optim.Adam(same.parameters())
        load_moments(path, same, fresh)
        assert not fresh.state
