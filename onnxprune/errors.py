"""What onnxprune raises. Every message is one sentence that says what to do next.

::

    ValueError
    └── OnnxPruneError          the root: `except onnxprune.OnnxPruneError` catches all of ours
        ├── ModelError          a model file that is missing, damaged or not ONNX
        ├── DataError           calibration or evaluation data that do not fit the model
        ├── RecipeError         an option, plan or recipe with a value that is not allowed
        ├── OutputError         a result that cannot be written where it was asked for
        ├── BlobError           a weight blob that is damaged or hostile
        ├── RunError            a run folder that cannot be resumed as asked
        ├── TrainingError       a training run that came to nothing
        └── KernelError         the kernel library is not there
"""


class OnnxPruneError(ValueError):
    """The root of all errors that onnxprune raises on purpose."""


class ModelError(OnnxPruneError):
    """A model file is missing, damaged, not ONNX, or asks for what is not allowed."""


class DataError(OnnxPruneError):
    """Calibration or evaluation data do not fit the model."""


class RecipeError(OnnxPruneError):
    """An option, plan or recipe holds a value that is not allowed."""


class OutputError(OnnxPruneError):
    """A result cannot be written where it was asked for."""


class BlobError(OnnxPruneError):
    """A weight blob is damaged or hostile."""


class RunError(OnnxPruneError):
    """A run folder cannot be resumed as asked."""


class TrainingError(OnnxPruneError):
    """A training run came to nothing: its loss is no number, or left all bounds."""


class KernelError(OnnxPruneError):
    """The kernel library is not there, or does not fit."""
