"""One row of the tables of Hugging Face models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

VOCABULARY = 99


class Net(NamedTuple):
    """A class of transformers, the settings of its configuration, and what it takes.

    Attributes:
        model: the class of the model.
        settings: of its configuration.
        takes: the kind of inputs, see `example`.
        image: the height and width of its images.
    """

    model: str
    settings: Mapping[str, Any]
    takes: str = "text"
    image: int = 32
