"""Resampling of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import fx

from modelport.backends.torch.operands import Operands
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Constant, Operand, Sizes, Tensor, Weight


@dataclass(frozen=True)
class _Resampling:
    """The attributes of Resize."""

    mode: str
    coordinates: str
    nearest: str
    cubic: float
    antialias: bool
    exclude_outside: bool
    extrapolation: float


@dataclass(frozen=True)
class _Axis:
    """One axis to resize: its size, the size to reach, the scale between them, and the part that is looked at."""

    index: int
    size: Any
    target: Any
    scale: Any
    begin: Any = 0.0
    end: Any = 1.0


@op("Resize")
def resize(
    x: Tensor,
    roi: Weight = None,
    scales: Weight = None,
    sizes: Weight = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    node: ir.Node,
    operands: Operands,
) -> Any:
    settings = _Resampling(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, bool(antialias), bool(exclude_outside),
        extrapolation_value,
    )  # fmt: skip
    chosen = [axis % x.rank for axis in axes] if axes is not None else list(range(x.rank))
    targets = operands.sizes(sizes) if _given(sizes) else None
    factors = _numbers(scales, len(chosen), operands) if _given(scales) and targets is None else None
    plan = _plan(x, chosen, targets, factors, keep_aspect_ratio_policy, node)
    if coordinate_transformation_mode == "tf_crop_and_resize":
        region = _numbers(roi, 2 * len(chosen), operands)
        pairs = zip(plan, region[: len(chosen)], region[len(chosen) :], strict=True)
        plan = [_Axis(a.index, a.size, a.target, a.scale, begin, end) for a, begin, end in pairs]
    else:
        plan = [axis for axis in plan if not _is_kept(axis, node)]
    # A policy keeps one scale for all axes, where torch makes one of each size, which is rounded.
    stretched = targets is not None and keep_aspect_ratio_policy == "stretch"
    known = stretched or (targets is None and isinstance(scales, Constant))
    fast = _interpolate(x, plan, settings, by_size=stretched) if known else None
    if fast is not None:
        return fast
    y: Any = x if x.element.is_floating_point else x.to(torch.float32)
    for axis in plan:
        y = _resample(y, axis, settings, x)
    return y if x.element.is_floating_point else y.to(x.element)


def _given(operand: Operand | None) -> bool:
    if isinstance(operand, Constant):
        return operand.array.size > 0
    return operand is not None and not (isinstance(operand, Tensor) and operand.dims == (0,))


def _numbers(operand: Operand | None, count: int, operands: Operands) -> list[Any]:
    """A vector of floats, as numbers where they are known."""
    if operand is None:
        raise CannotBuild("it crops and has no roi")
    if isinstance(operand, Constant):
        return [float(number) for number in operand.array.reshape(-1)]
    tensor = operands.tensor(operand)
    return [torch.select(tensor, 0, index).to(torch.float64) for index in range(count)]


def _plan(
    x: Tensor, axes: list[int], targets: list[Any] | None, factors: list[Any] | None, policy: str, node: ir.Node
) -> list[_Axis]:
    """Every axis with its target and its scale."""
    inferred = node.outputs[0].shape
    plan = []
    if targets is not None and policy != "stretch":
        ratios = [target / x.size_of(axis) for axis, target in zip(axes, targets, strict=True)]
        least, most = (min, max) if not any(isinstance(r, fx.Proxy) for r in ratios) else (torch.sym_min, torch.sym_max)
        common = ratios[0]
        for ratio in ratios[1:]:
            common = (least if policy == "not_larger" else most)(common, ratio)
        factors = [common] * len(axes)
    for place, axis in enumerate(axes):
        size = x.size_of(axis)
        fixed = inferred[axis] if inferred is not None and isinstance(inferred[axis], int) else None
        if factors is None:
            assert targets is not None
            target = fixed if fixed is not None else targets[place]
            plan.append(_Axis(axis, size, target, target / size))
            continue
        scale = factors[place]
        if fixed is None and isinstance(scale, fx.Proxy):
            raise CannotBuild("its scales are computed by the model and its output has no static shape")
        rounded = 0.5 if targets is not None else 0.0
        target = fixed if fixed is not None else _floor(size, scale, rounded)
        plan.append(_Axis(axis, size, target, scale))
    return plan


def _is_kept(axis: _Axis, node: ir.Node) -> bool:
    """Whether an axis keeps its size: by number, by name, or by a scale of 1."""
    if isinstance(axis.target, int) and isinstance(axis.size, int) and axis.size == axis.target:
        return True
    if isinstance(axis.scale, (int, float)) and axis.scale == 1:
        return True
    before, after = (
        None if v is None or v.shape is None else v.shape[axis.index] for v in (node.inputs[0], node.outputs[0])
    )
    return isinstance(before, ir.SymbolicDim) and before.value is not None and before == after


def _floor(size: Any, scale: float, rounded: float) -> Any:
    """A size times a scale, as an integer; an integer scale keeps a traced size an integer too."""
    if isinstance(size, int):
        return int(size * scale + rounded)
    if float(scale).is_integer():
        return size * int(scale)
    fraction = np.float64(scale).as_integer_ratio()
    return size * fraction[0] // fraction[1]


_INTERPOLATE = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}


def _interpolate(x: Tensor, plan: list[_Axis], settings: _Resampling, *, by_size: bool) -> Any:
    """torch's own interpolation, where it is the same; else `None`."""
    if x.rank not in (3, 4, 5) or not plan or any(axis.index < 2 for axis in plan) or not x.element.is_floating_point:
        return None
    mode = _torch_mode(x, plan, settings)
    if mode is None:
        return None
    options: dict[str, Any] = {"mode": mode}
    if mode not in ("nearest", "nearest-exact"):
        options["align_corners"] = settings.coordinates == "align_corners"
    if settings.antialias:
        options["antialias"] = True
    resized = {axis.index: axis for axis in plan}
    spatial = range(2, x.rank)
    if by_size or any(isinstance(axis.scale, fx.Proxy) for axis in plan):
        size = [resized[axis].target if axis in resized else x.size_of(axis) for axis in spatial]
        return F.interpolate(x, size=size, **options)
    return F.interpolate(x, scale_factor=[resized[a].scale if a in resized else 1.0 for a in spatial], **options)


def _torch_mode(x: Tensor, plan: list[_Axis], settings: _Resampling) -> str | None:
    half_pixel = settings.coordinates == "half_pixel" or (
        settings.coordinates == "pytorch_half_pixel"
        and not any(isinstance(a.target, int) and a.target == 1 for a in plan)
    )
    if settings.mode == "nearest":
        if settings.coordinates == "asymmetric" and settings.nearest == "floor":
            return "nearest"
        whole = all(isinstance(axis.scale, float) and axis.scale.is_integer() for axis in plan)
        exact = half_pixel and (
            settings.nearest == "round_prefer_ceil" or (whole and settings.nearest.startswith("round"))
        )
        return "nearest-exact" if exact else None
    if settings.antialias:
        # torch leaves out what is outside the image; its cubic filter has another coefficient.
        same = half_pixel and settings.exclude_outside and settings.mode == "linear" and x.rank == 4
        return "bilinear" if same else None
    plain = settings.mode == "linear" or (settings.cubic == -0.75 and not settings.exclude_outside)
    # torch aligns the corners of the result, ONNX those that the scale leads to: the size before it is rounded down.
    aligned = settings.coordinates == "align_corners" and all(_is_whole(axis) for axis in plan)
    if plain and (half_pixel or aligned):
        return _INTERPOLATE.get((settings.mode, x.rank - 2))
    return None


def _is_whole(axis: _Axis) -> bool:
    """Whether the scale leads to a whole size."""
    if isinstance(axis.scale, fx.Proxy) or float(axis.scale).is_integer():
        return True
    return isinstance(axis.size, int) and abs(axis.scale * axis.size - axis.target) < 1e-6 * axis.target


def _resample(y: Any, axis: _Axis, settings: _Resampling, x: Tensor) -> Any:
    """One axis, as the weighted sum of a few gathered neighbours."""
    source = _source(axis, settings, x)
    last = axis.size - 1
    if settings.mode == "nearest":
        rounding: dict[str, Any] = {
            "floor": torch.floor,
            "ceil": torch.ceil,
            "round_prefer_floor": lambda p: torch.ceil(p - 0.5),
            "round_prefer_ceil": lambda p: torch.floor(p + 0.5),
        }
        result = torch.index_select(y, axis.index, _inside(rounding[settings.nearest](source), last))
    else:
        result = _filtered(y, axis, settings, source, x)
    if settings.coordinates != "tf_crop_and_resize":
        return result
    outside = torch.logical_or(source < 0, source > last)
    return torch.where(_along(outside, axis.index, x.rank), settings.extrapolation, result)


def _inside(position: Any, last: Any) -> Any:
    return torch.clamp(position, 0, last).to(torch.int64)


def _along(vector: Any, axis: int, rank: int) -> Any:
    return torch.reshape(vector, [-1] + [1] * (rank - axis - 1))


def _source(axis: _Axis, settings: _Resampling, x: Tensor) -> Any:
    """Where in the input every output element lies."""
    position = torch.arange(axis.target, dtype=torch.float64, device=x.device)
    kind, scale, last = settings.coordinates, axis.scale, axis.size - 1
    reach = scale * axis.size - 1
    if kind == "asymmetric":
        return position / scale
    if kind == "align_corners":
        if isinstance(axis.target, fx.Proxy):
            # One element lies at 0, whatever it is divided by.
            return position * last / torch.sym_max(reach, 1e-6)
        return position * 0 if axis.target == 1 else position * last / reach
    if kind == "tf_crop_and_resize":
        if axis.target == 1:
            return position * 0 + (axis.begin + axis.end) * last / 2
        return position * (axis.end - axis.begin) * last / (axis.target - 1) + axis.begin * last
    if kind == "pytorch_half_pixel" and isinstance(axis.target, int) and axis.target == 1:
        return position * 0 - 0.5
    half_pixel = (position + 0.5) / scale - 0.5
    if kind == "half_pixel_symmetric":
        return half_pixel + axis.size / 2 * (1 - axis.target / (scale * axis.size))
    if kind not in ("half_pixel", "pytorch_half_pixel"):
        raise CannotBuild(f"its coordinate_transformation_mode {kind!r} is not known")
    return half_pixel


def _filtered(y: Any, axis: _Axis, settings: _Resampling, source: Any, x: Tensor) -> Any:
    base = torch.floor(source)
    ratio = source - base
    radius = 1 if settings.mode == "linear" else 2
    shrink: Any = 1.0
    start = 1 - radius
    if settings.antialias:
        if not isinstance(axis.size, int) or not isinstance(axis.target, int):
            raise CannotBuild("it smoothes over an axis whose size is not known; make it static")
        # The widest filter that a scale to this rounded size can ask for; what is too far away gets no weight.
        least = (axis.target - 0.5) / axis.size if isinstance(axis.scale, fx.Proxy) else axis.scale
        start = math.floor(-radius / min(least, 1.0)) + 1
        shrink = torch.clamp_max(axis.scale, 1.0) if isinstance(axis.scale, fx.Proxy) else min(axis.scale, 1.0)
    weights = [_weight((offset - ratio) * shrink, settings) for offset in range(start, 2 - start)]
    places = [base + offset for offset in range(start, 2 - start)]
    if settings.exclude_outside:
        inside = [torch.logical_and(place >= 0, place < axis.size) for place in places]
        weights = [torch.where(here, weight, 0.0) for here, weight in zip(inside, weights, strict=True)]
    if settings.exclude_outside or settings.antialias:
        total = sum(weights[1:], weights[0])
        weights = [weight / total for weight in weights]
    result: Any = None
    for place, weight in zip(places, weights, strict=True):
        part = torch.index_select(y, axis.index, _inside(place, axis.size - 1))
        part = part * _along(
            weight.to(torch.float32 if not x.element.is_floating_point else x.element), axis.index, x.rank
        )
        result = part if result is None else result + part
    return result


def _weight(distance: Any, settings: _Resampling) -> Any:
    d = torch.abs(distance)
    if settings.mode == "linear":
        return torch.clamp_min(1 - d, 0)
    a = settings.cubic
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


@op("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Any:
    torch_mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    if torch_mode == "bicubic" and x.rank != 4:
        raise CannotBuild("it samples other than two axes with cubic weights; torch does so for two")
    return F.grid_sample(x, grid, torch_mode, padding_mode, bool(align_corners))


@op("AffineGrid")
def affine_grid(theta: Tensor, size: Sizes, *, align_corners: int = 0) -> Any:
    return F.affine_grid(theta, size, bool(align_corners))


@op("RoiAlign")
def roi_align(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Any:
    if sampling_ratio <= 0:
        raise CannotBuild("its sampling_ratio follows the size of each region; set it to a number")
    shift = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    edges = rois * spatial_scale - shift
    left, top, right, bottom = (torch.select(edges, 1, place).unsqueeze(1) for place in range(4))
    width, height = right - left, bottom - top
    if not shift:
        width, height = torch.clamp_min(width, 1.0), torch.clamp_min(height, 1.0)
    rows = _samples(top, height, output_height, sampling_ratio, x)
    columns = _samples(left, width, output_width, sampling_ratio, x)
    images = torch.index_select(x, 0, batch_indices)
    sampled = _bilinear(images, rows, columns, x, mode)
    split = (output_height, sampling_ratio, output_width, sampling_ratio)
    sampled = torch.reshape(sampled, [sampled.size(0), sampled.size(1), *split])
    return torch.amax(sampled, (3, 5)) if mode == "max" else torch.mean(sampled, (3, 5))


def _samples(start: Any, length: Any, bins: int, ratio: int, x: Tensor) -> Any:
    """The sampled coordinates of every region along one axis: (regions, bins * ratio)."""
    step = torch.arange(bins * ratio, dtype=x.element, device=x.device) + 0.5
    return start + step * length / (bins * ratio)


def _bilinear(images: Any, rows: Any, columns: Any, x: Tensor, mode: str) -> Any:
    """Every region's image at the grid of its rows and columns; zero far outside, the border near it."""
    parts = []
    for places, size in ((rows, x.size_of(2)), (columns, x.size_of(3))):
        valid = torch.logical_and(places >= -1, places <= size)
        inside = torch.clamp(places, 0, size - 1)
        low = torch.floor(inside)
        ratio = inside - low
        low = low.to(torch.int64)
        parts.append(((low, 1 - ratio), (torch.clamp(low + 1, 0, size - 1), ratio), valid))
    terms = []
    for row, row_weight in parts[0][:2]:
        line = torch.gather(images, 2, row[:, None, :, None].expand(-1, x.size_of(1), -1, x.size_of(3)))
        for column, column_weight in parts[1][:2]:
            index = column[:, None, None, :].expand(-1, x.size_of(1), row.size(1), -1)
            terms.append(torch.gather(line, 3, index) * row_weight[:, None, :, None] * column_weight[:, None, None, :])
    # ONNX takes the largest of the weighted neighbours, not the largest interpolated value.
    joined = torch.amax(torch.stack(terms), 0) if mode == "max" else terms[0] + terms[1] + terms[2] + terms[3]
    valid = torch.logical_and(parts[0][2][:, None, :, None], parts[1][2][:, None, None, :])
    return torch.where(valid, joined, 0.0)
