"""Channels-last layout for backends that compute in it, and the cancelling of transposes.

`to_channels_last(model) -> (model, residual)` takes a normalised, shape-inferred, layer-recognised graph and returns a
copy in which every operator of `CHANNELS_LAST` is a build-only node of the same `op_type` in the domain
`modelport.channels_last` (`DOMAIN`), never saved to disk:

- its data input (input 0) and its output 0 are `(batch, *spatial, channels)`;
- **everything else is as in the ONNX operator**: attributes, weights (Conv OI*, ConvTranspose IO*, (C,) scales), `sizes`,
  `scales`, `roi` and `axes` of Resize, the `grid` of GridSample. They still speak of `(batch, channels, *spatial)`;
- the slope of a PRelu is the parameter itself, with 1 or C elements (found behind Reshape and Unsqueeze); a PRelu
  whose slope is anything else stays an ordinary, broadcasting PRelu;
- an operator stays plain ONNX (domain "", channels first) where its layout cannot change: the rank of its data is not
  known, or the Indices output of a MaxPool is used.

BatchNormalization of (batch, channels) is a node of `DOMAIN` too, so that a builder has one row for it.

The values between are then laid out so that few transposes remain. Every value of the source has a *stored form*: the
tensor transposed by some permutation. A Transpose of the source costs nothing, it only changes how the stored form is
read. Operators that do not care about the order of axes compute on the stored form with their axes renumbered; a
weight that broadcasts against it gets a small Reshape or Transpose of its own; the rest ask for the order they need. A
Transpose is made where producer and consumer disagree, once per value and order, and only moving axes of size 1 is a
Squeeze and an Unsqueeze instead. Inputs, outputs and weights of the graph keep their names, dtypes and shapes; nodes
keep their names.

`cancel_transposes(model) -> int` is the same in place for a portable graph, without nodes of `DOMAIN`: channels-first
operators stay as they are, and what surrounds them follows.

What counts as left over (`residual`, and the result of `cancel_transposes`): Transposes of activations; those of
weights are free, since a builder transposes a weight once. `residual` leaves out as many as the source had itself.
"""

from __future__ import annotations

DOMAIN = "modelport.channels_last"
"""The domain of build-only nodes whose data is (batch, *spatial, channels)."""

CHANNELS_LAST = frozenset(
    """
    AveragePool BatchNormalization Conv ConvTranspose DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool
    GridSample GroupNormalization InstanceNormalization LRN LpPool MaxPool PRelu Resize SpaceToDepth
    """.split()
)
"""The operators that become nodes of `DOMAIN`."""
