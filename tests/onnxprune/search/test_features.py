"""What a controller sees of a layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.search.features import FEATURES, variable_features
from onnxprune.search.space import Space, Variable, ladder
from passes.weights import collect_weights


def make_space(groups: dict[str, tuple], sizes: dict[str, int]) -> Space:
    variables = []
    for name, members in groups.items():
        rungs = ladder(*(sizes[member] for member in members))
        costs = np.sum(rungs, axis=0)
        variables.append(
            Variable(name, dict(zip(members, rungs, strict=True)), tuple(map(float, costs)))
        )
    return Space(tuple(variables))


@pytest.fixture(scope="module")
def lenet5():
    model = ir.load(Path(__file__).parents[3] / "models" / "lenet5.onnx")
    return collect_weights(model).weights


def table(weights, groups: dict[str, tuple]) -> dict[str, np.ndarray]:
    space = make_space(groups, {weight.name: weight.elements for weight in weights})
    rows = np.array(variable_features(space, weights))
    assert rows.shape == (len(groups), len(FEATURES))
    assert rows.min() >= 0
    assert rows.max() <= 1
    return dict(zip(FEATURES, rows.T, strict=True))


def test_layers_of_lenet5(lenet5) -> None:
    seen = table(lenet5, {weight.name: (weight.name,) for weight in lenet5})
    assert seen["convolution"].tolist() == [1, 1, 0, 0]
    assert seen["matrix_product"].tolist() == [0, 0, 1, 1]
    elements = np.array([500, 25_000, 400_000, 5_000])
    np.testing.assert_allclose(seen["cost_share"], elements / elements.sum())
    operations = elements * np.array([24 * 24, 8 * 8, 1, 1])
    np.testing.assert_allclose(seen["multiply_adds_share"], operations / operations.sum())
    assert seen["inputs"].argsort(stable=True).tolist() == [0, 1, 3, 2]
    assert seen["elements"].tolist() == pytest.approx(
        np.log(elements / 500) / np.log(400_000 / 500)
    )


def test_small_weights_are_counted(lenet5) -> None:
    seen = table(lenet5, {weight.name: (weight.name,) for weight in lenet5})
    for row, weight in enumerate(lenet5):
        values = np.abs(weight.values().ravel())
        below = np.mean(values < np.sqrt(np.mean(values**2)) / 2)
        assert seen["below_half"][row] == pytest.approx(below, abs=0.01)
    assert (seen["below_tenth"] < seen["below_half"]).all()


def test_groups_are_means(lenet5) -> None:
    names = [weight.name for weight in lenet5]
    seen = table(lenet5, {"first": (names[0], names[2]), "rest": (names[1], names[3])})
    assert seen["convolution"].tolist() == [0.5, 0.5]
    assert seen["cost_share"].tolist() == pytest.approx([400_500 / 430_500, 30_000 / 430_500])
