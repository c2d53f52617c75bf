"""What a framework must be able to do to be a backend.

A backend object is light: making it, asking `owns` and reading `formats` import no framework. Everything else imports
it on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from modelport.core.report import Note
from modelport.core.signature import Arrays, Signature
from modelport.core.training import Batch, Epoch, Plan

if TYPE_CHECKING:
    from onnx_ir import Model as Graph

Support = Literal["native", "custom", "fallback", "unsupported"]


class Exported(NamedTuple):
    """A portable graph and what did not cross into it as it was."""

    graph: Graph
    notes: tuple[Note, ...] = ()


class Built(NamedTuple):
    """A native model, what did not cross into it as it was, and its signature where its call nests otherwise than the
    graph says."""

    native: Any
    notes: tuple[Note, ...] = ()
    signature: Signature | None = None


class Opened(NamedTuple):
    """A native model read from a file, with the signature and example inputs that the file tells."""

    native: Any
    signature: Signature | None = None
    example: Any = None


@dataclass(frozen=True)
class FileFormat:
    """One kind of file that a framework reads or writes.

    Attributes:
        name: what `format=` says (`"pt2"`).
        suffixes: the suffixes it has, with the dot.
        detect: whether the bytes (or the directory's content) at a path are of this kind; it only looks, and runs
            nothing. Where a suffix is shared, this decides.
        open: reads a model; `None` for weights-only and write-only formats.
        write: writes `(native, path, signature, example)`; `None` where the framework cannot.
        read_weights: reads parameters by the framework's own names, for formats that hold weights only.
        unsafe: why opening the file could run code from it; empty where it cannot. A callable looks at the file.
    """

    name: str
    suffixes: tuple[str, ...]
    detect: Callable[[Path], bool]
    open: Callable[[Path], Opened] | None = None
    write: Callable[[Any, Path, Signature | None, Any], None] | None = None
    read_weights: Callable[[Path], Arrays] | None = None
    unsafe: Callable[[Path], str] = field(default=lambda path: "")


@runtime_checkable
class Backend(Protocol):
    """One framework. Everything above speaks to frameworks through this and nothing else.

    Parameters and gradients go by their portable names and layouts: torch's dotted names, `weight` and `bias`, Linear
    as (out, in), Conv as OIHW (see `docs/names.md`), whatever the framework calls them inside.

    A framework whose images have their channels last says so with a further attribute, `channels_last = True`.
    """

    name: str
    aliases: tuple[str, ...]
    modules: tuple[str, ...]
    """The importable modules that it needs (`("keras", "tensorflow")`)."""
    formats: tuple[FileFormat, ...]

    def owns(self, native: Any) -> bool:
        """Whether an object is this framework's model; imports nothing."""
        ...

    def signature(self, native: Any, example: Any = None) -> Signature:
        """The model's named inputs and outputs; `example` is what the native call takes (see `Signature.args`).

        Raises:
            SignatureError: the framework does not know the shapes and no example is given.
        """
        ...

    def flatten(self, native: Any, example: Any, signature: Signature) -> Arrays:
        """An example in the native call's nesting as arrays by input name."""
        ...

    def export(self, native: Any, example: Arrays, signature: Signature) -> Exported:
        """The portable graph; its inputs and outputs are the signature's, its weights have portable names.

        Raises:
            UnsupportedModelError: the framework cannot trace the model; the message names the line.
            UnsupportedOpError: an op has no portable form.
        """
        ...

    def build(self, graph: Graph) -> Built:
        """A native model that computes the graph; the graph is left as it was.

        Raises:
            UnsupportedOpError: an operator has no counterpart here; the message names it and its node.
        """
        ...

    def run(self, native: Any, inputs: Arrays, signature: Signature) -> Arrays:
        """The outputs in inference mode, NumPy in and NumPy out, by the signature's names."""
        ...

    def parameters(self, native: Any) -> Arrays:
        """Every parameter and persistent buffer by its portable name, in the portable layout."""
        ...

    def assign(self, native: Any, parameters: Mapping[str, Any]) -> None:
        """Set every parameter and persistent buffer by portable name; nothing is changed where one does not fit.

        Raises:
            DataError: a name is missing or unknown, or a shape differs; all of them are named.
        """
        ...

    def place(self, native: Any, device: str) -> Any:
        """The model on a device (`"cpu"`, `"cuda"`, `"cuda:1"`).

        Raises:
            DataError: there is no such device here.
        """
        ...

    def support(self, op_type: str, domain: str = "", *, text: bool = False) -> Support:
        """How `build` would realise an operator of the normal form; `text` says that it takes or gives strings."""
        ...


@runtime_checkable
class Borrower(Protocol):
    """A capability: a backend whose `run` copies a model's weights, and need not while their graph is there."""

    def borrowing(self, native: Any, graph: Graph) -> AbstractContextManager[None]:
        """While it is open, `run` may take the weights from the graph that the model was built from or exported to.

        They are used where they lie, and nothing of the graph is held afterwards. Those that are not the model's, bit
        by bit, are not borrowed.
        """
        ...


@runtime_checkable
class Trainer(Protocol):
    """A capability: a backend whose models have gradients."""

    def gradients(self, native: Any, inputs: Arrays, cotangents: Arrays, signature: Signature) -> Arrays:
        """The gradient of `sum(output * cotangent)` over the outputs, in inference mode.

        Returns:
            One array per trainable parameter, by portable name and in the portable layout; zeros where the outputs
            do not depend on it.
        """
        ...

    def fit(
        self,
        native: Any,
        batches: Callable[[int], Iterable[Batch]],
        plan: Plan,
        signature: Signature,
        on_epoch: Callable[[Epoch], bool],
    ) -> tuple[Epoch, ...]:
        """Train a model in place.

        Args:
            native: the model.
            batches: the batches of an epoch, counted from 0.
            plan: the loss, and how long and how fast to go.
            signature: of the model; the terms of the loss name its outputs.
            on_epoch: is called after each epoch, and says whether to stop.

        Raises:
            StepError: no parameter is left to train, or the loss is not finite.
        """
        ...
