"""The dims of operators that move a window over spatial axes: convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelport.graph.shapes.expr import Size, floordiv, minimum
from modelport.graph.shapes.info import Dims, Site


@dataclass(frozen=True)
class Window:
    """A window along one axis; `before` and `after` are its pads."""

    size: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def extent(self) -> int:
        return self.dilation * (self.size - 1) + 1

    def places(self, dim: Size, auto_pad: str, ceil_mode: bool = False) -> Size:
        """How many places the window has on an axis."""
        if auto_pad.startswith("SAME"):
            return -floordiv(-dim, self.stride)
        room = dim - self.extent + (0 if auto_pad == "VALID" else self.before + self.after)
        if not ceil_mode:
            return floordiv(room, self.stride) + 1
        # A window that would begin in the padding after the end does not count.
        return minimum(-floordiv(-room, self.stride) + 1, -floordiv(-(dim + self.before), self.stride))

    def spread(self, dim: Size, auto_pad: str, extra: int) -> Size:
        """The size of an axis that a transposed convolution fills."""
        if auto_pad.startswith("SAME"):
            return dim * self.stride
        padding = 0 if auto_pad == "VALID" else self.before + self.after
        return (dim - 1) * self.stride + extra + self.extent - padding


def _windows(site: Site, rank: int, kernel: Sequence[Size]) -> list[Window] | None:
    if not all(isinstance(size, int) for size in kernel) or len(kernel) != rank:
        return None
    strides, dilations = site.attr("strides", [1] * rank), site.attr("dilations", [1] * rank)
    pads = site.attr("pads", [0] * 2 * rank)
    return [
        Window(int(size), strides[axis], dilations[axis], pads[axis], pads[axis + rank])  # type: ignore[arg-type]
        for axis, size in enumerate(kernel)
    ]


def _conv(site: Site) -> Sequence[Dims] | None:
    x, weight = site.dims(0), site.dims(3 if site.node.op_type == "QLinearConv" else 1)
    if x is None or weight is None:
        return None
    windows = _windows(site, len(x) - 2, site.attr("kernel_shape", weight[2:]))
    if windows is None:
        return None
    auto_pad = site.attr("auto_pad", "NOTSET")
    return [(x[0], weight[0], *(w.places(dim, auto_pad) for w, dim in zip(windows, x[2:], strict=True)))]


def _conv_transpose(site: Site) -> Sequence[Dims] | None:
    x, weight = site.dims(0), site.dims(1)
    if x is None or weight is None:
        return None
    rank = len(x) - 2
    head = (x[0], weight[1] * site.attr("group", 1))
    if site.attr("output_shape") is not None:
        return [(*head, *site.attr("output_shape")[-rank:])]
    windows = _windows(site, rank, site.attr("kernel_shape", weight[2:]))
    if windows is None:
        return None
    auto_pad, extra = site.attr("auto_pad", "NOTSET"), site.attr("output_padding", [0] * rank)
    return [(*head, *(w.spread(dim, auto_pad, e) for w, dim, e in zip(windows, x[2:], extra, strict=True)))]


def _pool(site: Site) -> Sequence[Dims] | None:
    x = site.dims(0)
    if x is None:
        return None
    windows = _windows(site, len(x) - 2, site.attr("kernel_shape", ()))
    if windows is None:
        return None
    auto_pad, ceil_mode = site.attr("auto_pad", "NOTSET"), bool(site.attr("ceil_mode", 0))
    places = [w.places(dim, auto_pad, ceil_mode) for w, dim in zip(windows, x[2:], strict=True)]
    return [(*x[:2], *places)] * len(site.node.outputs)


WINDOWS = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), _conv),
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pool),
}
"""Rules by operator."""
