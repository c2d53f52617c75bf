"""How much a weight, or a slice of one, matters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelport.core.errors import DataError, StepError
from modelport.core.steps import Prune


class Importance:
    """The importance of the elements of weights, as a step asks for it.

    L1 is the absolute value and L2 the square of a weight, of which slices take the sums; Taylor is the absolute value
    of `weight * gradient`, the first-order change of the loss where the weight becomes zero (Molchanov et al. 2019,
    equation 8, without the square).
    """

    def __init__(self, step: Prune, gradients: Mapping[str, np.ndarray] | None) -> None:
        if step.importance == "taylor" and not gradients:
            raise StepError('Prune: importance="taylor" needs the gradients of the loss, and there are none.')
        self._kind = step.importance
        self._gradients = gradients or {}

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Whether the gradients are those of the weights.

        Raises:
            StepError: none of them is.
            DataError: one has another shape than its weight, or is not finite.
        """
        if self._kind != "taylor":
            return
        known = [name for name in shapes if name in self._gradients]
        if not known:
            raise StepError(
                f"Prune: none of the gradients ({sorted(self._gradients)[:4]}, …) is of a weight of the graph "
                f"({sorted(shapes)[:4]}, …)."
            )
        for name in known:
            gradient = self._gradients[name]
            if gradient.shape != shapes[name]:
                raise DataError(f"the gradient of {name!r} has shape {gradient.shape}, its weight {shapes[name]}.")
            if not np.isfinite(gradient).all():
                raise DataError(
                    f"the gradient of {name!r} has values that are not finite: look at the data and the loss."
                )

    def of(self, name: str, weight: np.ndarray) -> np.ndarray | None:
        """The importance of every element; `None` where the weight has no gradient to tell it."""
        array = weight.astype(np.float32, copy=False)
        if self._kind == "taylor":
            gradient = self._gradients.get(name)
            return None if gradient is None else np.abs(array * gradient.astype(np.float32, copy=False))
        return np.square(array) if self._kind == "l2" else np.abs(array)
