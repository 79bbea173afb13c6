"""onnxprune compresses any exported ONNX model, and measures what was gained.

The functions of the command line are here by their names: :func:`compress`, :func:`prune`,
:func:`pack` and the others, each with typed, frozen results; so are the recipe of a run, its
report, and what can go wrong:

::

    ValueError
    └── OnnxPruneError          the root: ``except onnxprune.OnnxPruneError`` catches all of ours
        ├── ModelError          a model file that is missing, damaged or not ONNX
        ├── DataError           calibration or evaluation data that do not fit the model
        ├── RecipeError         an option, plan or recipe with a value that is not allowed
        ├── OutputError         a result that cannot be written where it was asked for
        ├── BlobError           a weight blob that is damaged or hostile
        ├── RunError            a run folder that cannot be resumed as asked
        ├── TrainingError       a training run that came to nothing
        └── KernelError         the kernel library is not there

Nothing is loaded before it is used: ``import onnxprune`` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxprune.api import (
        accelerate,
        bench,
        compress,
        decode,
        encode,
        estimate,
        export,
        finetune,
        inspect,
        pack,
        prune,
        search,
        shrink,
        unpack,
        verify,
    )
    from onnxprune.errors import (
        BlobError,
        DataError,
        KernelError,
        ModelError,
        OnnxPruneError,
        OutputError,
        RecipeError,
        RunError,
        TrainingError,
    )
    from onnxprune.recipe import Recipe, load_recipe
    from onnxprune.report import Report
    from onnxprune.rules import Rule
    from onnxprune.search.pruning_env import PruningEnv, pruning_env

__all__ = [
    "inspect",
    "prune",
    "search",
    "compress",
    "finetune",
    "pack",
    "unpack",
    "shrink",
    "accelerate",
    "bench",
    "encode",
    "decode",
    "export",
    "estimate",
    "verify",
    "Recipe",
    "Rule",
    "load_recipe",
    "Report",
    "PruningEnv",
    "pruning_env",
    "OnnxPruneError",
    "ModelError",
    "DataError",
    "RecipeError",
    "OutputError",
    "BlobError",
    "RunError",
    "TrainingError",
    "KernelError",
    "__version__",
]

_HOMES = {
    "Recipe": "recipe",
    "Rule": "rules",
    "load_recipe": "recipe",
    "Report": "report",
    "PruningEnv": "search.pruning_env",
    "pruning_env": "search.pruning_env",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module 'onnxprune' has no attribute '{name}'"
        raise AttributeError(msg)
    home = _HOMES.get(name) or ("errors" if name.endswith("Error") else "api")
    return getattr(importlib.import_module(f"onnxprune.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``onnxprune.search`` a function although ``onnxprune/search/`` is a folder of modules.

    Python sets a submodule as an attribute of its package when it is first imported; where a public
    function has that name, the function stays. ``from onnxprune.search import ...`` works as ever.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
