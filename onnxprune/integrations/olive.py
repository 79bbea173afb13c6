"""onnxprune as a pass of Microsoft's Olive.

Olive finds passes through its package configuration, which a user's own file replaces as a whole:
:func:`package_config` gives Olive's with :class:`OnnxPrune` added. Use it as
``olive.workflows.run(config, package_config=package_config())``, or write it to a file with
``onnxprune olive-config`` and pass that to ``olive run --package-config``.

Our errors are ``ValueError``, which Olive lets through; of a ``RuntimeError`` it would only write a line to
its log and exit with 0.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olive.common.config_utils import validate_config
from olive.data.config import DataConfig
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.onnx.common import get_external_data_config, ir_model_to_olive_model
from olive.passes.pass_config import BasePassConfig, PassConfigParam
from olive.search.search_parameter import Categorical

from onnxprune import api
from onnxprune.model_io import load_model
from onnxprune.one_shot import ALLOCATIONS
from onnxprune.recipe import load_recipe
from passes.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from olive.hardware import AcceleratorSpec
    from olive.model import ONNXModelHandler

PASS = {
    "module_path": "onnxprune.integrations.olive.OnnxPrune",
    "supported_providers": ["*"],
    "supported_accelerators": ["*"],
    "supported_precisions": ["*"],
    "dataset": "dataset_optional",
    "module_dependencies": ["onnxprune"],
}
"""What Olive wants to know of the pass."""


class OnnxPrune(Pass):  # type: ignore[misc]  # Olive ships no types
    """Prune an ONNX model; names, interface and everything but the weights' values stay."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        del accelerator_spec
        return {
            "sparsity": PassConfigParam(
                type_=float,
                default_value=0.5,
                search_defaults=Categorical([0.3, 0.5, 0.7, 0.8, 0.9]),
                description="Share of all prunable weights to set to zero, 0 to 1.",
            ),
            "method": PassConfigParam(
                type_=str,
                default_value="magnitude",
                description=f"How weights are chosen and updated: {', '.join(METHODS)}; all but the "
                "first need data_config.",
            ),
            "allocation": PassConfigParam(
                type_=str,
                default_value=None,
                description=f"How the sparsity is shared between weights: {', '.join(ALLOCATIONS)}.",
            ),
            "pattern": PassConfigParam(
                type_=str,
                default_value="unstructured",
                description="The shape of masks: unstructured, N:M such as 2:4, RxC such as 4x1, channel, balanced:LxB, segments:LxB, burst:MEMORY.",
            ),
            "data_config": PassConfigParam(
                type_=DataConfig | dict,
                default_value=None,
                description="Calibration data, for the methods that use them; labels are not looked at.",
            ),
            "nodes_to_exclude": PassConfigParam(
                type_=list, default_value=None, description="Nodes or weights to leave dense."
            ),
            "op_types_to_prune": PassConfigParam(
                type_=list,
                default_value=None,
                description="Operators whose weights are pruned; all when None.",
            ),
            "rules": PassConfigParam(
                type_=list,
                default_value=None,
                description="Rules as in a recipe: sparsity, pattern or exclude for single weights, by "
                "node-name pattern (match) and operators (op_types).",
            ),
            "packed": PassConfigParam(
                type_=bool,
                default_value=False,
                description="Write the packed form, which standard operators expand when it is loaded; "
                "let it be the last pass, for others would expand it.",
            ),
            **get_external_data_config(),
        }

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        settings: Any = config
        target = resolve_onnx_path(output_model_path)
        recipe = load_recipe(None, {"rules": settings.rules})
        with tempfile.TemporaryDirectory() as folder:
            pruned = Path(folder) / "pruned.onnx"
            report = api.prune(
                model.model_path,
                pruned,
                sparsity=settings.sparsity,
                method=settings.method,
                allocation=settings.allocation,
                pattern=settings.pattern,
                data=_feeds(settings.data_config, model) if settings.data_config else None,
                recipe=recipe,
                nodes_to_exclude=settings.nodes_to_exclude or (),
                op_types_to_prune=settings.op_types_to_prune,
            )
            if not report.weights:
                reasons = "; ".join(dict.fromkeys(s.reason for s in report.skipped or ()))
                msg = f"no weight of '{model.model_path}' can be pruned: {reasons or 'it holds no constants'}"
                raise ValueError(msg)
            result = pruned
            if settings.packed:
                result = Path(folder) / "packed.onnx"
                api.pack(pruned, result)
            return ir_model_to_olive_model(load_model(result), target, config)


def _feeds(
    data_config: DataConfig | dict[str, Any], model: ONNXModelHandler
) -> Iterator[dict[str, Any]]:
    """The batches of an Olive data configuration as feeds by input name."""
    container = validate_config(data_config, DataConfig).to_data_container()
    reader = container.create_calibration_dataloader(
        model_path=model.model_path, io_config=model.io_config
    )
    while (feed := reader.get_next()) is not None:
        yield feed


def package_config() -> dict[str, Any]:
    """Olive's own package configuration with :class:`OnnxPrune` added."""
    text = Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8")
    config: dict[str, Any] = json.loads(text)
    config["passes"]["OnnxPrune"] = dict(PASS)
    return config
