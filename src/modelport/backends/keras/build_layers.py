"""The layers of Keras that take the model's weights: one function per layer, `None` where Keras has no such layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import onnx_ir as ir
from keras import layers

from modelport.backends.keras.absorb import Owned, constant, is_filled
from modelport.backends.keras.ops.conv import Numbers, cropped, dilated, explicit_pads, has_kernel, transpose_pads
from modelport.backends.keras.ops.shape import padded
from modelport.backends.keras.ops.tensors import dtype, positive, rank, sizes
from modelport.graph.layers.spatial_dropout import SPATIAL_DROPOUT
from modelport.graph.layout.channels_last import DOMAIN as CHANNELS_LAST
from modelport.graph.names import scoped
from modelport.graph.splice import BUILD_DOMAIN

if TYPE_CHECKING:
    from modelport.backends.keras.build import Program

Function = TypeVar("Function", bound=Callable[..., Any])

LAYERS: dict[tuple[str, str], Callable[..., Any]] = {}
"""By domain and operator; called with the `Place`, the data and the attributes."""


class Place:
    """Where a layer is built.

    Attributes:
        node: what it stands for.
        owned: its weights.
        name: the layer's.
        names: for further layers.
    """

    def __init__(self, program: Program, node: ir.Node, owned: Owned) -> None:
        self.node, self.owned, self.names = node, owned, program.names
        self._program = program
        existing = program.shared.get(owned.key)
        self.name = existing.name if existing is not None else program.names.claim(owned.name)

    def has(self, weight: str) -> bool:
        return weight in self.owned.weights

    def shape(self, weight: str) -> tuple[int, ...]:
        return self.owned.shape(weight)

    def input(self, index: int) -> Any:
        """An input of the node; `None` where it is absent."""
        return self._program.tensor(self.node.inputs[index]) if index < len(self.node.inputs) else None

    @property
    def is_shared(self) -> bool:
        """Whether other nodes call the layer too."""
        return self._program.calls(self.owned) > 1

    def known(self, key: tuple[Any, ...]) -> Any:
        """The layer that an earlier call made."""
        return self._program.shared.get(key)

    def register(self, key: tuple[Any, ...], made: Any, owned: Owned) -> None:
        """Keep a layer for later calls, and its weights for the time when it is built."""
        self._program.shared[key] = made
        self._program.hold(made, owned)

    def plain(self, made: Any) -> Any:
        """A layer without weights."""
        self._program.keep(made)
        return made

    def layer(self, kind: Any, *args: Any, like: Any, **kwargs: Any) -> Any:
        """The layer: the one that an earlier call made, or a new one of a class, in the dtype of its input."""
        if (found := self.known(self.owned.key)) is not None:
            return found
        policy = dtype(like) if "float" in dtype(like) else dtype(next(iter(self.owned.weights.values())).array)
        made = kind(*args, name=self.name, dtype=policy, **kwargs)
        self.register(self.owned.key, made, self.owned)
        return made


def layer(op_type: str, domain: str = "") -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        LAYERS[domain, op_type] = function
        return function

    return register


@layer("Linear", "modelport")
def dense(place: Place, x: Any, *, transposed: int = 0) -> Any:
    if rank(x) < 2 or sizes(x)[-1] is None:
        return None
    return place.layer(layers.Dense, place.shape("weight")[1 if transposed else 0], use_bias=place.has("bias"), like=x)(
        x
    )


@layer("Embedding", "modelport")
def embedding(place: Place, ids: Any) -> Any:
    return place.layer(layers.Embedding, *place.shape("weight"), like=ids)(ids)


def _kernels(place: Place, group: int, channels: int) -> tuple[Any, dict[str, Any]] | None:
    """The class of a convolution, and what it is called with beside the kernel."""
    out, _, *kernel = place.shape("weight")
    count = len(kernel)
    if count > 3:
        return None
    if group == channels and channels > 1 and count < 3:
        kind = {1: layers.DepthwiseConv1D, 2: layers.DepthwiseConv2D}[count]
        return kind, {"depth_multiplier": out // channels}
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[count]
    return kind, {"filters": out, "groups": group}


def _padding(widths: Any, window: Numbers, strides: Numbers) -> str | None:
    """Keras' word for a padding, if it has one."""
    if not any(map(any, widths)):
        return "valid"
    same = tuple(((span - 1) // 2, span - 1 - (span - 1) // 2) for span in window)
    return "same" if all(s == 1 for s in strides) and tuple(widths) == same else None


@layer("Conv", CHANNELS_LAST)
def conv(
    place: Place,
    x: Any,
    *,
    auto_pad: str = "NOTSET",
    dilations: Numbers | None = None,
    group: int = 1,
    kernel_shape: Numbers | None = None,
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Any:
    kernel = place.shape("weight")[2:]
    count = len(kernel)
    channels = sizes(x)[-1]
    if channels is None:
        return None
    dilations, strides = tuple(dilations or (1,) * count), tuple(strides or (1,) * count)
    found = _kernels(place, group, channels)
    skips = any(d > 1 for d in dilations)
    if found is None or not has_kernel(strides, dilations, place.shape("weight")[1]) or (count == 3 and skips):
        return None
    kind, options = found
    window = dilated(kernel, dilations)
    same = auto_pad == "SAME_UPPER"
    widths = () if same else explicit_pads(auto_pad, pads, sizes(x)[1:-1], window, strides)
    word = "same" if same else _padding(widths, window, strides)
    data = x if word else padded(x, ((0, 0), *widths, (0, 0)))
    built = place.layer(
        kind, kernel_size=kernel, strides=strides, dilation_rate=dilations, padding=word or "valid",
        use_bias=place.has("bias"), like=x, **options,
    )  # fmt: skip
    return built(data)


@layer("ConvTranspose", CHANNELS_LAST)
def conv_transpose(
    place: Place,
    x: Any,
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
    _, filters, *kernel = place.shape("weight")
    count = len(kernel)
    strides = tuple(strides or (1,) * count)
    if count > 3 or sizes(x)[-1] is None or group != 1 or any(d > 1 for d in dilations or ()):
        return None
    cuts = transpose_pads(auto_pad, pads, output_shape, output_padding or (0,) * count, sizes(x)[1:-1], kernel, strides)
    if any(before < 0 or after < 0 for before, after in cuts) and place.has("bias"):
        # What output_padding adds beyond the kernel gets the bias too; the layer would add it before the crop.
        return None
    kind = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose, 3: layers.Conv3DTranspose}[count]
    built = place.layer(kind, filters, tuple(kernel), strides=strides, use_bias=place.has("bias"), like=x)
    extra = (max(s - k, 0) for s, k in zip(strides, kernel, strict=True))
    return cropped(built(x), [(before, after + more) for (before, after), more in zip(cuts, extra, strict=True)])


@layer("BatchNormalization", CHANNELS_LAST)
def batch_normalization(
    place: Place, x: Any, *, epsilon: float = 1e-5, momentum: float = 0.9, training_mode: int = 0
) -> Any:
    affine = [(name, constant(place.node, 1 + i)) for i, name in enumerate(("weight", "bias"))]
    trivial = all(place.has(name) or is_filled(array, 1 - i) for i, (name, array) in enumerate(affine))
    if (
        training_mode
        or sizes(x)[-1] is None
        or not trivial
        or not (place.has("running_mean") and place.has("running_var"))
    ):
        return None
    built = place.layer(
        layers.BatchNormalization, axis=-1, momentum=momentum, epsilon=epsilon,
        scale=place.has("weight"), center=place.has("bias"), like=x,
    )  # fmt: skip
    return built(x)


@layer("GroupNormalization", CHANNELS_LAST)
def group_normalization(place: Place, x: Any, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1) -> Any:
    if not (place.has("weight") and place.has("bias")) or None in sizes(x)[1:]:
        return None
    return place.layer(layers.GroupNormalization, groups=num_groups, axis=-1, epsilon=epsilon, like=x)(x)


@layer("InstanceNormalization", CHANNELS_LAST)
def instance_normalization(place: Place, x: Any, *, epsilon: float = 1e-5) -> Any:
    if not (place.has("weight") and place.has("bias")) or None in sizes(x)[1:]:
        return None
    return place.layer(layers.GroupNormalization, groups=place.shape("weight")[0], axis=-1, epsilon=epsilon, like=x)(x)


@layer("LayerNormalization")
def layer_normalization(place: Place, x: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    if len(place.node.outputs) > 1 or not place.has("weight") or constant_bias(place):
        return None
    axes = list(range(positive(axis, rank(x)) - rank(x), 0))
    if tuple(sizes(x)[axes[0] :]) != place.shape("weight"):
        return None
    built = place.layer(layers.LayerNormalization, axis=axes, epsilon=epsilon, center=place.has("bias"), like=x)
    return built(x)


@layer("RMSNormalization")
def rms_normalization(place: Place, x: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Any:
    axes = list(range(positive(axis, rank(x)) - rank(x), 0))
    if axes != [-1] or tuple(sizes(x)[-1:]) != place.shape("weight") or dtype(x) != "float32":
        return None
    return place.layer(layers.RMSNormalization, axis=-1, epsilon=epsilon, like=x)(x)


def constant_bias(place: Place) -> bool:
    """Whether a bias is a constant other than 0."""
    array = constant(place.node, 2)
    return not place.has("bias") and array is not None and not is_filled(array, 0)


@layer("PRelu", CHANNELS_LAST)
def prelu(place: Place, x: Any) -> Any:
    count = math.prod(place.shape("weight"))
    if sizes(x)[-1] is None or count not in (1, sizes(x)[-1]) or "float" not in dtype(x):
        return None
    shared = list(range(1, rank(x) - (1 if count > 1 else 0)))
    return place.layer(layers.PReLU, shared_axes=shared or None, like=x)(x)


DROPOUTS = frozenset({("", "Dropout"), (BUILD_DOMAIN, SPATIAL_DROPOUT)})


def dropout(program: Program, node: ir.Node, x: Any) -> Any:
    """A layer for a Dropout whose ratio is known and whose mask nobody reads; `None` for others."""
    ratio = constant(node, 1)
    if (
        (len(node.inputs) > 1 and node.inputs[1] is not None and ratio is None)
        or len(node.outputs) > 1
        or len(node.inputs) > 2
    ):
        return None
    axes = tuple(node.attributes.get_ints("axes", ()))
    return dropped(program, node, x, 0.5 if ratio is None else float(ratio.reshape(())), axes)


def dropped(program: Program, node: ir.Node, x: Any, ratio: float, axes: tuple[int, ...] = ()) -> Any:
    """A tensor behind a Dropout layer of a node's name, which drops whole slices along some axes."""
    name = scoped(node.name or "dropout")
    made = _dropout_layer(rank(x), axes)(ratio, name=program.names.fresh(name), dtype=dtype(x))
    program.keep(made)
    return made(x)


_SPATIAL_DROPOUTS = {4: layers.SpatialDropout2D, 5: layers.SpatialDropout3D}


def _dropout_layer(rank: int, axes: tuple[int, ...]) -> Callable[..., Any]:
    """What drops elements of tensors of a rank, all along some axes together."""
    if not axes:
        return layers.Dropout
    if rank == 3 and axes == (1,):
        return layers.SpatialDropout1D
    for data_format, first in (("channels_last", 1), ("channels_first", 2)):
        if rank in _SPATIAL_DROPOUTS and axes == tuple(range(first, first + rank - 2)):
            return partial(_SPATIAL_DROPOUTS[rank], data_format=data_format)
    return partial(layers.Dropout, noise_shape=tuple(1 if axis in axes else None for axis in range(rank)))
