"""What is learned from: pairs of inputs and targets, whole or in batches, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from modelport.core.errors import DataError
from modelport.core.rows import any_rows, is_array, observed
from modelport.core.signature import Signature
from modelport.core.training import Batch


class Data:
    """Batches of inputs by the signature's names and targets by output name.

    Args:
        data: `(x, y)` arrays, or batches of such pairs, see `FineTune`.
        signature: of the model.
        batch_size: rows per batch, where the data are arrays; a model whose inputs have a fixed number of rows gets
            those.
        seed: of the order of the rows.
        targets: whether there have to be any; without them, data may be inputs alone.
        what: how the caller calls the data, for the message.
        hint: what the message adds where there are no targets.

    Raises:
        DataError: arrays do not fit the signature, are empty, hold NaN, or differ in their number of rows.
    """

    def __init__(
        self,
        data: Any,
        signature: Signature,
        *,
        batch_size: int,
        seed: int = 0,
        targets: bool = True,
        what: str,
        hint: str = "",
    ) -> None:
        self._signature, self._targets, self._what = signature, targets, what
        self._size, self._seed, self._hint = batch_size, seed, hint
        self._batches: Any = None if self._is_whole(data) else data
        if self._batches is not None:
            if not callable(data) and not isinstance(data, Iterable):
                raise DataError(f"{what} is a pair (x, y) of inputs and targets, or batches of such pairs.")
            return
        self._whole = self._pair(data, any_rows(signature))
        fixed = [spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], int)]
        self._size, self._fixed = (fixed[0], True) if fixed else (batch_size, False)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0; the rows of arrays are in another order each time.

        Raises:
            DataError: a batch does not fit the signature, or there are none (an iterator is empty after one epoch).
        """
        if self._batches is None:
            return self._shuffled(np.random.default_rng((self._seed, epoch)))
        return self._given(f"in epoch {epoch + 1}")

    def in_order(self) -> Iterator[Batch]:
        """The batches in the order that the rows have.

        Raises:
            DataError: see `batches`.
        """
        return self._given("any more") if self._batches is not None else self._shuffled(None)

    def _given(self, when: str) -> Iterator[Batch]:
        count = 0
        for pair in self._batches() if callable(self._batches) else self._batches:
            count += 1
            yield self._pair(pair, self._signature)
        if not count:
            raise DataError(
                f"{self._what} has no batches {when}: an iterator can be gone through once only. Give a list that is "
                "not empty, a loader, or a function that makes an iterator each time."
            )

    def _shuffled(self, rng: np.random.Generator | None) -> Iterator[Batch]:
        rows = len(next(iter(self._whole.inputs.values())))
        order = np.arange(rows) if rng is None else rng.permutation(rows)
        if self._fixed:
            order = np.resize(order, -(-rows // self._size) * self._size)
        # Batches of nearly one size: the statistics of BatchNorm need more rows than the one that may be left.
        for chosen in np.array_split(order, -(-len(order) // self._size)):
            yield Batch(*({name: array[chosen] for name, array in part.items()} for part in self._whole))

    def _pair(self, pair: Any, signature: Signature) -> Batch:
        x, y = self._split(pair)
        inputs = observed(signature, x, what=self._what.removesuffix(" data"))
        named = y if isinstance(y, Mapping) else {} if y is None else {self._signature.outputs[0].name: y}
        known = [spec.name for spec in self._signature.outputs]
        unknown = [name for name in named if name not in known]
        if unknown:
            raise DataError(f"{self._what} has targets for {unknown}, and the outputs of the model are {known}.")
        targets = {name: self._array(name, array) for name, array in named.items()}
        rows = len(next(iter(inputs.values())))
        for name, array in targets.items():
            if array.ndim == 0 or len(array) != rows:
                raise DataError(f"{self._what} has {rows} rows of inputs and targets {array.shape} for {name!r}.")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"{self._what} has targets for {name!r} that are NaN or infinite: remove those rows.")
        return Batch(inputs, targets)

    def _array(self, name: str, array: Any) -> np.ndarray:
        try:
            return np.asarray(array)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self._what} has targets for {name!r} that make no array: {error}") from error

    def _is_whole(self, data: Any) -> bool:
        """Whether data are inputs, or inputs and targets, themselves, and no batches of them."""
        if isinstance(data, tuple):
            return len(data) == 2 or self._are_inputs(data)
        return isinstance(data, Mapping) or is_array(data)

    def _are_inputs(self, data: Any) -> bool:
        """Whether data without targets are one array for each of several inputs."""
        several = len(self._signature.inputs) > 1 and len(data) == len(self._signature.inputs)
        return several and not self._targets and all(map(is_array, data))

    def _split(self, pair: Any) -> tuple[Any, Any]:
        if isinstance(pair, (tuple, list)) and len(pair) == 2 and not self._are_inputs(pair):
            if not self._targets or pair[1] is not None:
                return pair[0], pair[1]
        elif not self._targets:
            return (tuple(pair) if isinstance(pair, list) else pair), None
        raise DataError(
            f"{self._what} is a pair (x, y) of inputs and targets, or batches of such pairs, and not {type(pair)}."
            f"{self._hint}"
        )
