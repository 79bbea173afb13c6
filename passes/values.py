"""What a model's values hold while calibration data run through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from passes.operators.constants import stored_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray


def tap_name(value: ir.Value) -> str:
    """The name under which a value is watched; one that the model leaves out gets a name here.

    An output that nothing reads (the sequence of hidden states of an LSTM, say) may be left out by
    giving it no name.
    """
    if value.name:
        return value.name
    node = value.producer()
    assert node is not None
    known = next((output.name for output in node.outputs if output.name), node.name)
    return f"{known}::{value.index()}"


@final
class Values:
    """The arrays of one batch: those that were computed, and the constants of the model.

    Args:
        live: computed values by name.
        constants: arrays that take the place of the model's own, by name.

    Attributes:
        constants: the same.
    """

    def __init__(
        self, live: Mapping[str, NDArray[Any]], constants: Mapping[str, NDArray[Any]]
    ) -> None:
        self._live, self.constants = live, constants

    def __getitem__(self, value: ir.Value) -> NDArray[Any]:
        """The array of a value."""
        name = tap_name(value)
        for known in (self._live, self.constants):
            if name in known:
                return known[name]
        tensor = stored_tensor(value)
        if tensor is None:
            raise KeyError(name)
        array: NDArray[Any] = tensor.numpy()
        return array

    def get(self, value: ir.Value | None) -> NDArray[Any] | None:
        """The array of a value, or None where it is not there."""
        if value is None:
            return None
        try:
            return self[value]
        except KeyError:
            return None
