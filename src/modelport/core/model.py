"""The handle that every verb returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from modelport.core.backend import Backend
from modelport.core.errors import SignatureError
from modelport.core.signature import Arrays, Signature

Event = Mapping[str, Any]
"""One entry of a history: the verb, what it did and what it measured, as JSON."""


class Model:
    """A native model with its signature and history: NumPy in, NumPy out, on any backend.

    Attributes:
        native: the framework's own object; nothing of modelport is inside it.
        backend: the name of its backend (`"torch"`, `"keras"`, `"onnx"`).
        signature: its named inputs and outputs.
        report: what the verb that made this handle measured; `None` after a plain `load`.
        history: one JSON-like entry per verb that the model went through, oldest first.
        example: the inputs it is checked on, by name; `None` where they are drawn.
        aliases: the further names of tied weights that its framework has no place for, by the name that it keeps.

    Example:
        >>> model = mp.load("resnet.mport")                       # doctest: +SKIP
        >>> model(np.zeros((2, 3, 224, 224), "float32")).shape    # doctest: +SKIP
        (2, 1000)
    """

    def __init__(
        self,
        native: Any,
        backend: Backend,
        signature: Signature,
        *,
        example: Arrays | None = None,
        history: tuple[Event, ...] = (),
        report: Any = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.native = native
        self.signature = signature
        self.history = history
        self.report = report
        self.example = example
        self.aliases = dict(aliases or {})
        self._backend = backend

    def __repr__(self) -> str:
        return f"<modelport.Model on {self.backend}: {self.signature}>"

    def replaced(self, **changes: Any) -> Model:
        """A handle like this one with some of its attributes changed; the native model is not copied."""
        settings: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "_backend"}
        return Model(backend=self._backend, **{**settings, **changes})

    @property
    def backend(self) -> str:
        return self._backend.name

    def __call__(self, x: Any) -> Any:
        """The outputs in inference mode, as NumPy arrays nested as the native model returns them.

        Args:
            x: one array, a tuple in the order of the inputs, or a dict by input name.

        Raises:
            SignatureError: an input's name, rank, size or dtype does not fit.
        """
        outputs = self._backend.run(self.native, self.signature.bind(x), self.signature)
        return self.signature.pack(outputs)

    def predict(self, x: Any, *, batch_size: int = 32, n_jobs: int = 1, progress: bool = False) -> Any:
        """The outputs for many rows, computed in batches along the first axis and concatenated.

        Args:
            x: as for a call; every input has the rows on its first axis.
            batch_size: rows per call.
            n_jobs: how many batches run at once, in threads through joblib; `joblib.parallel_config` chooses another
                engine.
            progress: whether to show a progress bar.

        Raises:
            SignatureError: an input does not fit, or an input or output is a sequence or an optional.
        """
        import joblib
        from tqdm.auto import tqdm

        odd = [spec.name for spec in (*self.signature.inputs, *self.signature.outputs) if not spec.is_tensor]
        if odd:
            raise SignatureError(f"{odd} are no tensors, so there are no rows to go through: call the model instead.")
        arrays = self.signature.bind(x)
        rows = list(batches(arrays, batch_size))
        run = joblib.delayed(lambda batch: self._backend.run(self.native, batch, self.signature))
        parallel = joblib.Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
        parts = list(tqdm(parallel(run(b) for b in rows), total=len(rows), disable=not progress, unit="batch"))
        return self.signature.pack({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def parameters(self) -> Arrays:
        """Every parameter and persistent buffer by its portable name, as NumPy arrays in the portable layout."""
        return self._backend.parameters(self.native)

    def save(self, path: Any, **options: Any) -> None:
        """`modelport.save(self, path, ...)`."""
        from modelport.verbs.save import save

        save(self, path, **options)


def batches(arrays: Arrays, size: int) -> Iterator[Arrays]:
    """The rows of inputs, so many at a time; the last ones may be fewer."""
    rows = max((len(array) for array in arrays.values()), default=0)
    for start in range(0, max(rows, 1), size):
        yield {name: array[start : start + size] for name, array in arrays.items()}
