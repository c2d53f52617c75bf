"""Numbers of the approximations of special functions that no operator of ONNX is."""

from __future__ import annotations

ERFINV_NEAR = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
"""The inverse of the error function, over `w - 2.5` for `w = -log(1 - x^2)` below 5; the highest power first.

Giles, Approximating the erfinv function, GPU Computing Gems, Jade edition (2012): single precision.
"""

ERFINV_FAR = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip
"""The same over `sqrt(w) - 3`, from 5 on."""
