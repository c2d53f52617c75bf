"""The framework that trains."""

from __future__ import annotations

from typing import Any

from modelport.core import registry
from modelport.core.backend import Trainer
from modelport.core.errors import StepError


def trainer(preferred: str, step: str) -> Any:
    """The backend to train on: the preferred one where it has gradients, else the first that is installed and has.

    Args:
        preferred: the name of a backend.
        step: what needs it, for the message.

    Raises:
        StepError: no backend that is installed has gradients.
    """
    installed = [backend for backend in registry.backends() if not registry.missing(backend)]
    trainers = [backend for backend in installed if isinstance(backend, Trainer)]
    if trainers:
        order = (preferred, "torch", "keras")
        return min(trainers, key=lambda each: order.index(each.name) if each.name in order else len(order))
    raise StepError(
        f'{step} needs gradients, and no framework is installed that has them: pip install "modelport[torch]".'
    )
