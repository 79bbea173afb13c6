"""The table of operators, and the page made from it."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as ort_state
import pytest

from passes.operators.document import page
from passes.operators.table import LEFT_ALONE, WEIGHT_INPUTS

ROOT = Path(__file__).parents[2]
SCHEMAS = {
    (schema.domain, schema.name): schema
    for schema in ort_state.get_all_operator_schema()
    if schema.domain == "com.microsoft"
}


def test_the_page_is_that_of_the_code() -> None:
    assert (ROOT / "docs" / "operators.md").read_text() == page()


def test_no_input_is_listed_twice() -> None:
    places = [(w.domain, w.op_type, w.index) for w in WEIGHT_INPUTS]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("weight", WEIGHT_INPUTS, ids=lambda w: f"{w.op_type}-{w.index}")
def test_inputs_are_those_of_the_operators_own_description(weight) -> None:
    """Weights, scales and zero points stand where ONNX and onnxruntime say they do."""
    if weight.domain:
        schema = SCHEMAS.get((weight.domain, weight.op_type))
        if schema is None:
            pytest.skip(f"this onnxruntime does not describe {weight.op_type}")
    else:
        schema = onnx.defs.get_schema(weight.op_type)
    names = [parameter.name.lower() for parameter in schema.inputs]
    if weight.op_type == "Einsum":
        assert names == ["inputs"]
        return
    assert weight.index < len(names)
    if weight.scale is not None:
        assert "scale" in names[weight.scale]
    if weight.zero_point is not None:
        assert "zero_point" in names[weight.zero_point]


def test_reasons_for_operators_that_are_left() -> None:
    for (domain, op_type), reason in LEFT_ALONE.items():
        assert reason[0].isupper() or reason.startswith("onnxruntime")
        assert (domain, op_type) in SCHEMAS or domain == "com.microsoft.nchwc"
