"""Every error modelport raises on purpose.

    ModelPortError
    ├── MissingBackendError      a framework is not installed
    ├── UnsupportedModelError    no backend owns the object, or its code cannot be exported
    ├── UnsupportedOpError       an operator has no counterpart on the target
    ├── FormatError              a file's format is unknown or does not fit the call
    ├── SignatureError           an input's name, rank, shape or dtype is wrong
    ├── ParityError              the model's outputs changed beyond the tolerance
    ├── UntrustedFileError       opening the file could run code from it
    ├── IntegrityError           a file is damaged, truncated or altered
    ├── DataError                parameters or example data do not fit the model
    └── StepError                a step of `compress` cannot do what it says

A message says what was wrong, where, and what to do next.
"""

from __future__ import annotations


class ModelPortError(Exception):
    """The root of every error that modelport raises on purpose."""


class MissingBackendError(ModelPortError, ImportError):
    """A framework that the call needs is not installed, or no backend has that name."""


class UnsupportedModelError(ModelPortError, TypeError):
    """No backend owns the object, or the framework cannot export its code."""


class UnsupportedOpError(ModelPortError):
    """An operator of the graph has no counterpart on the target backend.

    Attributes:
        op_type: the operator, as its standard names it (`"NonMaxSuppression"`).
        node: the node's name in the graph, empty where it has none.
    """

    def __init__(self, message: str, *, op_type: str = "", node: str = "") -> None:
        super().__init__(message)
        self.op_type = op_type
        self.node = node


class FormatError(ModelPortError, ValueError):
    """A file's format is unknown, or it does not fit what was asked."""


class SignatureError(ModelPortError, ValueError):
    """An input's name, rank, shape or dtype is not what the model's signature says."""


class ParityError(ModelPortError):
    """The model's outputs changed beyond the tolerance.

    Attributes:
        report: the `ParityReport` with every figure that was measured.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report


class UntrustedFileError(ModelPortError):
    """Opening the file could run code from it, and the caller has not said that it is trusted."""


class IntegrityError(ModelPortError):
    """A file is damaged, truncated, or not what its manifest says."""


class DataError(ModelPortError, ValueError):
    """Parameters or example data do not fit the model."""


class StepError(ModelPortError, ValueError):
    """A step's settings make no sense, or it cannot do what it says to this model."""
