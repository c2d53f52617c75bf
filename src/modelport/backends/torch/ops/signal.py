"""Fourier transforms and their windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from modelport.backends.torch.dtypes import torch_dtype
from modelport.backends.torch.registry import CannotBuild, op
from modelport.backends.torch.traced import Size, Tensor


def _complex(x: Tensor) -> Any:
    """The last axis, real or real and imaginary parts, as complex numbers."""
    if x.dims[-1] == 1:
        return x.squeeze(-1)
    return torch.complex(torch.select(x, -1, 0), torch.select(x, -1, 1))


@op("DFT")
def dft(x: Tensor, length: Size = None, axis: Size = -2, *, inverse: int = 0, onesided: int = 0) -> Any:
    axis = axis % x.rank if isinstance(axis, int) else axis
    if isinstance(axis, int) and axis == x.rank - 1:
        raise CannotBuild("it transforms the axis of real and imaginary parts")
    # The axis of parts is gone while torch transforms, so that an axis from the end moves by one.
    signal = _complex(x)
    if inverse and onesided:
        return torch.fft.irfft(signal, length, axis).unsqueeze(-1)
    if inverse:
        return torch.view_as_real(torch.fft.ifft(signal, length, axis))
    if onesided and x.dims[-1] == 1:
        return torch.view_as_real(torch.fft.rfft(signal, length, axis))
    return torch.view_as_real(torch.fft.fft(signal, length, axis))


@op("STFT")
def stft(
    signal: Tensor, frame_step: Size, window: Tensor | None = None, frame_length: Size = None, *, onesided: int = 1
) -> Any:
    length = (
        frame_length if frame_length is not None else (window.size_of(0) if window is not None else signal.size_of(1))
    )
    frames = _complex(signal).unfold(1, length, frame_step)
    frames = frames if window is None else frames * window
    real = signal.dims[-1] == 1
    return torch.view_as_real(torch.fft.rfft(frames) if onesided and real else torch.fft.fft(frames))


def _window(name: str, function: Callable[[Any], Any]) -> None:
    @op(name)
    def apply(size: Size, *, output_datatype: int = 1, periodic: int = 1, anchor: Tensor) -> Any:
        dtype = torch_dtype(output_datatype)
        steps = torch.arange(size, dtype=torch.float64, device=anchor.device)
        return function(steps * (2 * math.pi) / (size if periodic else size - 1)).to(dtype)


_window("HannWindow", lambda angle: 0.5 - 0.5 * torch.cos(angle))
_window("HammingWindow", lambda angle: 25 / 46 - 21 / 46 * torch.cos(angle))
_window("BlackmanWindow", lambda angle: 0.42 - 0.5 * torch.cos(angle) + 0.08 * torch.cos(2 * angle))


@op("MelWeightMatrix")
def mel_weight_matrix(
    num_mel_bins: Size,
    dft_length: Size,
    sample_rate: Size,
    lower_edge_hertz: Size,
    upper_edge_hertz: Size,
    *,
    output_datatype: int = 1,
    anchor: Tensor,
) -> Any:
    low, high = (
        2595 * torch.log10(1 + anchor.new_full((), edge, dtype=torch.float64) / 700)
        for edge in (lower_edge_hertz, upper_edge_hertz)
    )
    steps = torch.arange(num_mel_bins + 2, dtype=torch.float64, device=anchor.device)
    hertz = 700 * (torch.pow(10.0, (steps * (high - low) / (num_mel_bins + 2) + low) / 2595) - 1)
    edges = torch.floor((dft_length + 1) * hertz / sample_rate)
    left, centre, right = (torch.narrow(edges, 0, start, num_mel_bins) for start in range(3))
    bins = torch.arange(dft_length // 2 + 1, dtype=torch.float64, device=anchor.device).unsqueeze(1)
    rising = torch.where(left == centre, (bins == centre).to(torch.float64), (bins - left) / (centre - left))
    falling = (right - bins) / (right - centre)
    y = torch.where(bins <= centre, rising, falling)
    y = torch.where(torch.logical_and(bins >= left, torch.logical_or(bins < right, bins == centre)), y, 0.0)
    return F.relu(y).to(torch_dtype(output_datatype))
