"""The operators that are drawn, grouped as the field groups them."""

from tests.properties.operators import control, elementwise, image, index, norm, reductions, sequence_models, shape
from tests.properties.operators.control import grow
from tests.properties.operators.registry import TABLE

__all__ = [
    "TABLE",
    "control",
    "elementwise",
    "grow",
    "image",
    "index",
    "norm",
    "reductions",
    "sequence_models",
    "shape",
]
