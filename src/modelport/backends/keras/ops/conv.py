"""Convolutions whose weights are computed; those of a model's own weights become layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from modelport.backends.keras.ops.index import counting
from modelport.backends.keras.ops.registry import Ints, NeedsValues, op, spatial
from modelport.backends.keras.ops.shape import padded
from modelport.backends.keras.ops.tensors import cast, dtype, part, plus, precise, rank, size, sizes, wide, zero_of

Numbers = Sequence[int]


def explicit_pads(
    auto_pad: str, pads: Numbers | None, lengths: Sequence[int | None], window: Numbers, strides: Numbers
) -> tuple[tuple[int, int], ...]:
    """The padding before and after every spatial axis.

    Args:
        auto_pad: ONNX's attribute.
        pads: all the befores, then all the afters.
        lengths: of the spatial axes.
        window: the size of the (dilated) kernel.
        strides: of the kernel.

    Raises:
        NeedsValues: the padding depends on a length that is not static.
    """
    count = len(window)
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        given = pads or (0,) * 2 * count
        return tuple((given[i], given[count + i]) for i in range(count))
    result = []
    for length, span, stride in zip(lengths, window, strides, strict=True):
        if length is None and stride != 1:
            raise NeedsValues(f"auto_pad={auto_pad} depends on a size that is not static")
        total = span - 1 if length is None else max((-(-length // stride) - 1) * stride + span - length, 0)
        small = total // 2
        result.append((small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small))
    return tuple(result)


def dilated(kernel_shape: Numbers, dilations: Numbers) -> tuple[int, ...]:
    """The size of a kernel with its gaps."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel_shape, dilations, strict=True))


def has_kernel(strides: Numbers, dilations: Numbers, channels: int) -> bool:
    """Whether TensorFlow has a kernel for a convolution of so many input channels in each group.

    It has none for strides and dilations at once, and the one for a single channel computes with unequal strides what
    lies beside the image.
    """
    skips = any(d > 1 for d in dilations) and any(s > 1 for s in strides)
    return not skips and (channels > 1 or len(set(strides)) == 1)


def convolve(x: Any, kernel: Any, strides: Numbers, dilations: Numbers, group: int) -> Any:
    """A convolution of (batch, *spatial, channels) with a kernel (*spatial, in / group, out), without padding."""
    if isinstance(kernel, keras.KerasTensor) and not isinstance(x, keras.KerasTensor):
        # Keras looks at the data alone to see whether it builds a model.
        x = plus(cast(zero_of(kernel), dtype(x)), x)
    if (
        group > 1
        and group == sizes(x)[-1]
        and (result := _depthwise(precise(x), precise(kernel), strides, dilations)) is not None
    ):
        # TensorFlow's kernel adds up in half precision what others add up in single.
        return cast(result, dtype(x))
    if not has_kernel(strides, dilations, size(kernel, -2)):
        dense = convolve(x, kernel, (1,) * len(strides), dilations, group)
        return dense[(slice(None), *(slice(None, None, s) for s in strides))]
    if group == 1:
        return ops.conv(x, kernel, tuple(strides), "valid", "channels_last", tuple(dilations))
    parts = zip(ops.split(x, group, axis=-1), ops.split(kernel, group, axis=-1), strict=True)
    return ops.concatenate([convolve(a, b, strides, dilations, 1) for a, b in parts], axis=-1)


def _depthwise(x: Any, kernel: Any, strides: Numbers, dilations: Numbers) -> Any:
    """A convolution of every channel by itself in one operation; `None` where TensorFlow has no kernel for it."""
    channels, count = size(x, -1), len(strides)
    kernel = ops.reshape(kernel, (*sizes(kernel)[:-2], channels, size(kernel, -1) // channels))
    if count == 3:
        return _depthwise_volume(x, kernel, strides, dilations)
    if count > 3 or not has_kernel(strides, dilations, 1):
        return None
    return ops.depthwise_conv(x, kernel, *_settings(strides, dilations))


def _settings(strides: Numbers, dilations: Numbers) -> tuple[Any, ...]:
    """What Keras' depthwise convolution is called with; it joins tuples to tuples, and a file makes lists of them."""
    return strides[0], "valid", "channels_last", dilations[0] if len(set(dilations)) == 1 else tuple(dilations)


def _depthwise_volume(x: Any, kernel: Any, strides: Numbers, dilations: Numbers) -> Any:
    """The same of volumes: the sum over the layers of the kernel, each a convolution of images."""
    if None in sizes(x)[1:] or not has_kernel(strides[1:], dilations[1:], 1):
        return None
    deep, images = size(kernel, 0), []
    for layer in range(deep):
        start, rest = layer * dilations[0], (deep - 1 - layer) * dilations[0]
        images.append(part(x, 1, start, -rest or None, strides[0]))
    flat = [ops.reshape(each, (-1, *sizes(x)[2:])) for each in images]
    settings = _settings(strides[1:], dilations[1:])
    total = ops.depthwise_conv(flat[0], kernel[0], *settings)
    for layer in range(1, deep):
        total = ops.add(total, ops.depthwise_conv(flat[layer], kernel[layer], *settings))
    return ops.reshape(total, (-1, size(images[0], 1), *sizes(total)[1:]))


@spatial("Conv")
def conv(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Numbers | None = None,
    group: int = 1,
    kernel_shape: Numbers | None = None,
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Any:
    count = rank(x) - 2
    dilations, strides = dilations or (1,) * count, strides or (1,) * count
    kernel = ops.transpose(weight, (*range(2, count + 2), 1, 0))
    window = dilated([size(weight, 2 + i) for i in range(count)], dilations)
    widths = explicit_pads(auto_pad, pads, sizes(x)[1:-1], window, strides)
    result = convolve(padded(x, ((0, 0), *widths, (0, 0))), kernel, strides, dilations, group)
    return result if bias is None else plus(result, bias)


def _spread(x: Any, strides: Numbers) -> Any:
    """(batch, *spatial, channels) with zeros between its elements."""
    for axis, step in enumerate(strides, 1):
        length = sizes(x)[axis]
        if step > 1 and (length is None or sizes(x).count(None) > 1):
            # A Reshape leaves one size open at most.
            copies = ops.repeat(x, step, axis=axis)
            first = ops.equal(ops.mod(counting(copies, axis), step), 0)
            x = part(ops.where(first, copies, ops.zeros_like(copies)), axis, 0, 1 - step)
        elif step > 1 and length is not None:
            widths = [(0, step - 1) if i == axis + 1 else (0, 0) for i in range(rank(x) + 1)]
            shape = [-1 if n is None else n for n in sizes(x)]
            shape[axis] = length * step
            x = part(
                ops.reshape(ops.pad(ops.expand_dims(x, axis + 1), widths), shape), axis, 0, (length - 1) * step + 1
            )
    return x


def transpose_pads(
    auto_pad: str,
    pads: Numbers | None,
    output_shape: Numbers | None,
    output_padding: Numbers,
    lengths: Sequence[int | None],
    window: Numbers,
    strides: Numbers,
) -> tuple[tuple[int, int], ...]:
    """What is cut off before and after every spatial axis of a full transposed convolution; negative adds zeros.

    Raises:
        NeedsValues: it depends on a length that is not static.
    """
    count = len(window)
    if output_shape is None and auto_pad in ("NOTSET", "VALID"):
        given = pads or (0,) * 2 * count
        return tuple((given[i], given[count + i] - output_padding[i]) for i in range(count))
    result = []
    for i, (length, span, stride) in enumerate(zip(lengths, window, strides, strict=True)):
        if length is None:
            raise NeedsValues("the padding of a transposed convolution depends on a size that is not static")
        target = output_shape[i] if output_shape is not None else length * stride
        total = stride * (length - 1) + output_padding[i] + span - target
        # Where the output is larger than the convolution, the zeros are added at the end.
        before = max(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2, 0)
        result.append((before, total - before - output_padding[i]))
    return tuple(result)


def cropped(x: Any, cuts: Sequence[tuple[int, int]]) -> Any:
    """(batch, *spatial, channels) with something cut off its spatial axes; a negative cut adds zeros."""
    for axis, (before, after) in enumerate(cuts, 1):
        x = part(x, axis, max(before, 0), -after if after > 0 else None)
    return padded(x, ((0, 0), *((max(-before, 0), max(-after, 0)) for before, after in cuts), (0, 0)))


@spatial("ConvTranspose")
def conv_transpose(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Numbers | None = None,
    group: int = 1,
    kernel_shape: Numbers | None = None,
    output_padding: Numbers | None = None,
    output_shape: Numbers | None = None,
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Any:
    count = rank(x) - 2
    strides, dilations = tuple(strides or (1,) * count), dilations or (1,) * count
    kernel = ops.flip(ops.transpose(weight, (*range(2, count + 2), 0, 1)), axis=tuple(range(count)))
    window = dilated([size(weight, 2 + i) for i in range(count)], dilations)
    cuts = transpose_pads(auto_pad, pads, output_shape, output_padding or (0,) * count, sizes(x)[1:-1], window, strides)
    # As a convolution of the spread data: Keras' own operation mixes up its arguments in a functional model.
    data = padded(_spread(x, strides), ((0, 0), *((span - 1, span - 1) for span in window), (0, 0)))
    inputs = ops.split(data, group, axis=-1) if group > 1 else [data]
    kernels = ops.split(kernel, group, axis=-2) if group > 1 else [kernel]
    results = [convolve(a, b, (1,) * count, dilations, 1) for a, b in zip(inputs, kernels, strict=True)]
    result = cropped(results[0] if group == 1 else ops.concatenate(results, axis=-1), cuts)
    return result if bias is None else plus(result, bias)


@op("Col2Im")
def col2im(
    x: Any,
    image_shape: Ints,
    block_shape: Ints,
    *,
    dilations: Numbers | None = None,
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Any:
    """The sum of blocks at their places in an image: a transposed convolution, each channel an image of its own."""
    count, elements = len(image_shape), math.prod(block_shape)
    strides, pads = tuple(strides or (1,) * count), tuple(pads or (0,) * 2 * count)
    window = dilated(block_shape, dilations or (1,) * count)
    around = [pads[i] + pads[count + i] for i in range(count)]
    blocks = [(n + p - w) // s + 1 for n, p, w, s in zip(image_shape, around, window, strides, strict=True)]
    columns = ops.transpose(ops.reshape(wide(x), (-1, elements, *blocks)), (0, *range(2, 2 + count), 1))
    data = padded(_spread(columns, strides), ((0, 0), *((span - 1, span - 1) for span in window), (0, 0)))
    kernel = np.eye(elements, dtype=dtype(columns))[::-1].reshape(*block_shape, elements, 1)
    image = convolve(data, kernel, (1,) * count, dilations or (1,) * count, 1)
    # Behind the last block there may be pixels that are in none.
    spans = [(b - 1) * s + w for b, s, w in zip(blocks, strides, window, strict=True)]
    image = cropped(image, [(pads[i], spans[i] - pads[i] - image_shape[i]) for i in range(count)])
    return cast(ops.reshape(image, (-1, size(x, 1) // elements, *image_shape)), dtype(x))


@spatial("ConvInteger")
def conv_integer(x: Any, weight: Any, x_zero: Any = None, w_zero: Any = None, **attributes: Any) -> Any:
    # In double precision, which holds every 32-bit sum exactly: the CPU has no kernel for integers.
    x, weight = cast(x, "float64"), cast(weight, "float64")
    x = x if x_zero is None else ops.subtract(x, cast(x_zero, "float64"))
    if w_zero is not None:
        zero = cast(w_zero, "float64")
        weight = ops.subtract(weight, ops.reshape(zero, (-1, *[1] * (rank(weight) - 1))) if rank(zero) else zero)
    return cast(conv(x, weight, None, **attributes), "int32")
