"""Every layer that Keras brings, as small models: `CASES`, and `model_of(case)` and `inputs_of(case, batch)`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

ROW, SEQUENCE, ANY_LENGTH, IMAGE, PICTURE, VOLUME = (6,), (7, 6), (None, 6), (9, 8, 6), (8, 8, 3), (6, 5, 4, 3)


@dataclass(frozen=True)
class Case:
    """One small model.

    Attributes:
        shape: of its input, without the batch; `None` for a size that may change.
        call: the model, from its input to its output.
        dtype: of the input.
        values: which numbers the input has: `"normal"`, `"ids"` (0 is padding, at the end of a row), `"picture"`
            (0 to 255), `"words"`.
    """

    shape: tuple[int | None, ...]
    call: Callable[[Any], Any]
    dtype: str = "float32"
    values: str = "normal"


def _ids(shape: tuple[int | None, ...], call: Callable[[Any], Any]) -> Case:
    return Case(shape, call, "int32", "ids")


def _picture(call: Callable[[Any], Any]) -> Case:
    return Case(PICTURE, call, values="picture")


def _words(call: Callable[[Any], Any], shape: tuple[int | None, ...] = (3,)) -> Case:
    return Case(shape, call, "string", "words")


def _embedded(layer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A layer on a sequence that carries a mask."""
    return lambda ids: layer(layers.Embedding(20, 6, mask_zero=True)(ids))


@keras.saving.register_keras_serializable(package="tests")
class LeakyCell(layers.Layer):
    """A recurrent cell that Keras does not have."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.leak = self.add_weight(shape=(self.units,), name="leak")

    def call(self, x: Any, states: Any) -> Any:
        new = ops.sigmoid(self.leak) * states[0] + ops.tanh(x @ self.kernel)
        return new, [new]


class Called(layers.Layer):
    """A layer whose symbolic call is not to be relied on, called by another."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, x: Any) -> Any:
        return self.inner(x)


class Matrices(layers.Layer):
    """Square matrices solved, factored and taken apart."""

    def call(self, x: Any) -> Any:
        square = ops.reshape(x[..., :9], (-1, 7, 3, 3)) + 3 * ops.eye(3)
        positive = ops.matmul(square, ops.transpose(square, (0, 1, 3, 2))) + ops.eye(3)
        sign, size = ops.slogdet(square)
        parts = [
            ops.inv(square), ops.solve(square, positive), ops.cholesky(positive),
            ops.solve_triangular(square, positive, lower=True), ops.solve_triangular(square, positive),
            ops.trace(square, axis1=2, axis2=3), ops.diagonal(square, 1, 2, 3), sign, size, ops.det(square),
            ops.cross(square, positive), ops.cumprod(square, -1),
        ]  # fmt: skip
        return ops.concatenate(
            [ops.reshape(part, (-1, 7, part.shape[2] or 1, 1)) for part in parts if part.ndim == 3]
            + [ops.reshape(part, (-1, 7, 9, 1)) for part in parts if part.ndim == 4],
            2,
        )


class Elements(layers.Layer):
    """Elements counted, put into segments, replaced and shifted."""

    def call(self, x: Any) -> Any:
        places = ops.argmax(x, -1)
        by_place = ops.segment_max(ops.transpose(x[0]), ops.convert_to_tensor([0, 0, 2, 2, 2, 1]), 4)
        sums = ops.segment_sum(ops.transpose(x[0]), ops.convert_to_tensor([0, 0, 2, 2, 2, -1]), 4)
        new = ops.slice_update(x, (0, 2, 1), x[:, :3, :4])
        whole = ops.cast(x * 9, "int32")
        shifted = ops.left_shift(whole, 2) + ops.right_shift(whole, 1)
        best = ops.in_top_k(places[:, 0], x[:, 1], 3)
        found = ops.where(ops.isfinite(by_place), by_place, 0.0) + sums
        return (
            new + ops.cast(shifted, x.dtype) + ops.cast(best, x.dtype)[:, None, None] + ops.mean(ops.clip(found, -9, 9))
        )


class Frequencies(layers.Layer):
    """Transforms of one and two dimensions, and back."""

    def call(self, x: Any) -> Any:
        real, imaginary = ops.rfft(x)
        back = ops.irfft((real, imaginary * 0.5), fft_length=12)
        forth = ops.fft2(ops.fft((x, x * 0.5)))
        return ops.concatenate([back, *ops.ifft2(forth)], -1)


class OneStep(layers.Layer):
    """A recurrent cell that is called by hand."""

    def __init__(self, cell: Any, states: int) -> None:
        super().__init__()
        self.cell, self.states = cell, states

    def build(self, shape: Any) -> None:
        self.cell.build(shape)

    def call(self, x: Any) -> Any:
        return self.cell(x, [x * (n + 1.0) for n in range(self.states)])[0]


def _normalization() -> Any:
    return layers.Normalization(mean=np.arange(6.0), variance=np.arange(1.0, 7.0))


def _stacked() -> Any:
    return layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], return_sequences=True)


def _cnn(x: Any) -> Any:
    return layers.Conv2D(4, 3, name="inner")(x)


CASES: dict[str, Case] = {
    # Core.
    "Activation": Case(ROW, lambda x: layers.Activation("gelu")(x)),
    "Dense": Case(ROW, lambda x: layers.Dense(5, activation="gelu")(x)),
    "Dense on a sequence": Case(ANY_LENGTH, lambda x: layers.Dense(5, use_bias=False)(x)),
    "Dense with a function of its own": Case(ROW, lambda x: layers.Dense(5, activation=lambda t: t * t + 1.0)(x)),
    "EinsumDense": Case(SEQUENCE, lambda x: layers.EinsumDense("abc,cde->abde", (None, 3, 4), bias_axes="de")(x)),
    "EinsumDense that contracts two": Case(
        IMAGE, lambda x: layers.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e")(x)
    ),
    "EinsumDense with an ellipsis": Case(IMAGE, lambda x: layers.EinsumDense("...x,xy->...y", 4, bias_axes="y")(x)),
    "EinsumDense that is no Linear": Case(SEQUENCE, lambda x: layers.EinsumDense("abc,bcd->abd", (7, 4))(x)),
    "Embedding": _ids(SEQUENCE[:1], lambda x: layers.Embedding(20, 5)(x)),
    "Identity": Case(ROW, lambda x: layers.Identity()(x)),
    "Lambda": Case(ROW, lambda x: layers.Lambda(lambda t: ops.sin(t) + 1.0)(x)),
    "Masking": Case(SEQUENCE, lambda x: layers.Masking(0.0)(x)),
    "ReversibleEmbedding": _ids(SEQUENCE[:1], lambda x: _reversible(x)),
    "InputLayer": Case(ROW, lambda x: keras.Sequential([layers.InputLayer((6,)), layers.Dense(3)])(x)),
    # Convolutions.
    "Conv1D": Case(SEQUENCE, lambda x: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(x)),
    "Conv1D with a stride": Case(SEQUENCE, lambda x: layers.Conv1D(4, 3, strides=2, padding="same")(x)),
    "Conv1D on any length": Case(ANY_LENGTH, lambda x: layers.Conv1D(4, 3, strides=2, padding="same")(x)),
    "Conv1D causal on any length": Case(ANY_LENGTH, lambda x: layers.Conv1D(4, 3, padding="causal")(x)),
    "Conv2D": Case(IMAGE, lambda x: layers.Conv2D(4, (3, 2), strides=2, padding="same", activation="silu")(x)),
    "Conv2D in groups": Case(IMAGE, lambda x: layers.Conv2D(4, 3, groups=2, use_bias=False)(x)),
    "Conv2D dilated": Case(IMAGE, lambda x: layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x)),
    "Conv2D on any size": Case((None, None, 3), lambda x: layers.Conv2D(4, 3, strides=2, padding="same")(x)),
    "Conv3D": Case(VOLUME, lambda x: layers.Conv3D(4, 2, strides=2, padding="same")(x)),
    "DepthwiseConv1D": Case(SEQUENCE, lambda x: layers.DepthwiseConv1D(3, depth_multiplier=2)(x)),
    "DepthwiseConv2D": Case(IMAGE, lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(x)),
    "DepthwiseConv2D dilated": Case(IMAGE, lambda x: layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")(x)),
    "SeparableConv1D": Case(SEQUENCE, lambda x: layers.SeparableConv1D(5, 3, padding="same", activation="elu")(x)),
    "SeparableConv1D on any length": Case(ANY_LENGTH, lambda x: layers.SeparableConv1D(5, 3, padding="same")(x)),
    "SeparableConv2D": Case(IMAGE, lambda x: layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2)(x)),
    "Conv1DTranspose": Case(SEQUENCE, lambda x: layers.Conv1DTranspose(4, 3, strides=2, padding="same")(x)),
    "Conv1DTranspose on any length": Case(ANY_LENGTH, lambda x: layers.Conv1DTranspose(4, 4, strides=2)(x)),
    "Conv2DTranspose": Case(IMAGE, lambda x: layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x)),
    "Conv2DTranspose without padding": Case(IMAGE, lambda x: layers.Conv2DTranspose(4, 2, strides=3)(x)),
    "Conv2DTranspose with output_padding": Case(
        IMAGE, lambda x: layers.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1)(x)
    ),
    "Conv2DTranspose dilated": Case(IMAGE, lambda x: layers.Conv2DTranspose(4, 3, dilation_rate=2)(x)),
    "Conv3DTranspose": Case(VOLUME, lambda x: layers.Conv3DTranspose(2, 3, strides=2, padding="same")(x)),
    # Pooling.
    **{
        f"{kind}{rank}D": Case(shape, lambda x, k=kind, n=rank: getattr(layers, f"{k}{n}D")(2, padding="same")(x))
        for kind in ("MaxPooling", "AveragePooling")
        for rank, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"Global{kind}Pooling{rank}D": Case(
            shape, lambda x, k=kind, n=rank: getattr(layers, f"Global{k}Pooling{n}D")(keepdims=n == 2)(x)
        )
        for kind in ("Max", "Average")
        for rank, shape in ((1, ANY_LENGTH), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"Adaptive{kind}Pooling{rank}D": Case(
            shape, lambda x, k=kind, n=rank: getattr(layers, f"Adaptive{k}Pooling{n}D")((3, 4, 2)[:n])(x)
        )
        for kind in ("Max", "Average")
        for rank, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
    },
    "MaxPooling1D on any length": Case(ANY_LENGTH, lambda x: layers.MaxPooling1D(3, strides=2)(x)),
    "AveragePooling1D on any length": Case(ANY_LENGTH, lambda x: layers.AveragePooling1D(3, padding="same")(x)),
    "GlobalAveragePooling1D masked": _ids((None,), _embedded(lambda x: layers.GlobalAveragePooling1D()(x))),
    # Recurrence.
    "LSTM": Case(SEQUENCE, lambda x: layers.LSTM(5, return_sequences=True)(x)),
    "LSTM on any length": Case(ANY_LENGTH, lambda x: layers.LSTM(5)(x)),
    "LSTM backwards": Case(SEQUENCE, lambda x: layers.LSTM(5, return_sequences=True, go_backwards=True)(x)),
    "LSTM with states": Case(SEQUENCE, lambda x: layers.LSTM(5, return_state=True, use_bias=False)(x)),
    "LSTM from a state": Case(SEQUENCE, lambda x: layers.LSTM(6)(x, initial_state=[x[:, 0], x[:, 1]])),
    "LSTM with functions of its own": Case(
        ANY_LENGTH, lambda x: layers.LSTM(5, activation="relu", recurrent_activation="hard_sigmoid")(x)
    ),
    "LSTM unrolled": Case(SEQUENCE, lambda x: layers.LSTM(5, unroll=True)(x)),
    "LSTM masked": _ids((None,), _embedded(lambda x: layers.LSTM(5)(x))),
    "LSTM masked, of five steps": _ids((5,), _embedded(lambda x: layers.LSTM(5, return_sequences=True)(x))),
    "LSTM masked with everything": _ids(
        (None,),
        _embedded(lambda x: layers.LSTM(5, return_sequences=True, return_state=True, zero_output_for_mask=True)(x)),
    ),
    "LSTM masked backwards": _ids((None,), _embedded(lambda x: layers.LSTM(5, go_backwards=True)(x))),
    "LSTM after Masking": Case(ANY_LENGTH, lambda x: layers.LSTM(5)(layers.Masking(0.0)(x))),
    "LSTM twice masked": _ids(
        (None,), _embedded(lambda x: layers.LSTM(4)(layers.LSTM(5, return_sequences=True)(x)))
    ),
    "GRU": Case(SEQUENCE, lambda x: layers.GRU(5, return_sequences=True, return_state=True)(x)),
    "GRU on any length": Case(ANY_LENGTH, lambda x: layers.GRU(5)(x)),
    "GRU that resets before": Case(SEQUENCE, lambda x: layers.GRU(5, reset_after=False)(x)),
    "GRU masked": _ids((None,), _embedded(lambda x: layers.GRU(5)(x))),
    "SimpleRNN": Case(SEQUENCE, lambda x: layers.SimpleRNN(5, return_sequences=True)(x)),
    "SimpleRNN with relu": Case(SEQUENCE, lambda x: layers.SimpleRNN(5, activation="relu", go_backwards=True)(x)),
    "SimpleRNN masked": _ids((None,), _embedded(lambda x: layers.SimpleRNN(5, return_sequences=True)(x))),
    "Bidirectional LSTM": Case(ANY_LENGTH, lambda x: layers.Bidirectional(layers.LSTM(5))(x)),
    "Bidirectional GRU": Case(
        SEQUENCE, lambda x: layers.Bidirectional(layers.GRU(5, return_sequences=True), "ave")(x)
    ),
    "Bidirectional with states": Case(SEQUENCE, lambda x: layers.Bidirectional(layers.LSTM(5, return_state=True))(x)),
    "Bidirectional apart": Case(SEQUENCE, lambda x: layers.Bidirectional(layers.LSTM(5), merge_mode=None)(x)),
    "Bidirectional masked": _ids(
        (None,), _embedded(lambda x: layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x))
    ),
    "Bidirectional masked GRU": _ids((None,), _embedded(lambda x: layers.Bidirectional(layers.GRU(5))(x))),
    "RNN of one cell": Case(ANY_LENGTH, lambda x: layers.RNN(layers.LSTMCell(4), return_sequences=True)(x)),
    "RNN of a cell of its own": Case(ANY_LENGTH, lambda x: layers.RNN(LeakyCell(4), return_sequences=True)(x)),
    "RNN of a cell of its own, of seven steps": Case(SEQUENCE, lambda x: layers.RNN(LeakyCell(4))(x)),
    "RNN masked": _ids((None,), _embedded(lambda x: layers.RNN(LeakyCell(4))(x))),
    "StackedRNNCells": Case(ANY_LENGTH, lambda x: _stacked()(x)),
    "LSTMCell": Case(ROW, lambda x: OneStep(layers.LSTMCell(6), 2)(x)),
    "GRUCell": Case(ROW, lambda x: OneStep(layers.GRUCell(6), 1)(x)),
    "SimpleRNNCell": Case(ROW, lambda x: OneStep(layers.SimpleRNNCell(6), 1)(x)),
    "ConvLSTM1D": Case((4, 6, 3), lambda x: layers.ConvLSTM1D(2, 3, padding="same")(x)),
    "ConvLSTM2D": Case((None, 6, 5, 3), lambda x: layers.ConvLSTM2D(2, 3, return_sequences=True)(x)),
    "ConvLSTM3D": Case((None, 4, 5, 4, 2), lambda x: layers.ConvLSTM3D(2, 2, padding="same")(x)),
    "TimeDistributed": Case(ANY_LENGTH, lambda x: layers.TimeDistributed(layers.Dense(3))(x)),
    "TimeDistributed convolution": Case((4, *PICTURE), lambda x: layers.TimeDistributed(layers.Conv2D(2, 3))(x)),
    "TimeDistributed on any length": Case(
        (None, *PICTURE), lambda x: layers.TimeDistributed(layers.Conv2D(2, 3, strides=2))(x)
    ),
    "TimeDistributed masked": _ids((None,), _embedded(lambda x: layers.TimeDistributed(layers.Dense(3))(x))),
    # Attention.
    "MultiHeadAttention": Case(SEQUENCE, lambda x: layers.MultiHeadAttention(2, 4)(x, x)),
    "MultiHeadAttention on any length": Case(ANY_LENGTH, lambda x: layers.MultiHeadAttention(2, 4)(x, x)),
    "MultiHeadAttention causal": Case(
        ANY_LENGTH, lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    ),
    "MultiHeadAttention masked": _ids((None,), _embedded(lambda x: layers.MultiHeadAttention(2, 4)(x, x))),
    "MultiHeadAttention masked and causal": _ids(
        (None,), _embedded(lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
    ),
    "MultiHeadAttention with scores": Case(
        SEQUENCE, lambda x: layers.MultiHeadAttention(2, 4)(x, x, return_attention_scores=True)
    ),
    "MultiHeadAttention over two axes": Case(
        (4, 5, 6), lambda x: layers.MultiHeadAttention(2, 4, attention_axes=(1, 2))(x, x)
    ),
    "GroupQueryAttention": Case(SEQUENCE, lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x)),
    "GroupQueryAttention on any length": Case(
        ANY_LENGTH, lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x, use_causal_mask=True)
    ),
    "Attention": Case(ANY_LENGTH, lambda x: layers.Attention()([x, x])),
    "Attention causal": Case(ANY_LENGTH, lambda x: layers.Attention(use_scale=True)([x, x], use_causal_mask=True)),
    "Attention masked": _ids((None,), _embedded(lambda x: layers.Attention()([x, x]))),
    "AdditiveAttention": Case(SEQUENCE, lambda x: layers.AdditiveAttention()([x, x])),
    "AdditiveAttention on any length": Case(ANY_LENGTH, lambda x: layers.AdditiveAttention()([x, x])),
    # Normalisation.
    "BatchNormalization": Case(IMAGE, lambda x: layers.BatchNormalization()(x)),
    "BatchNormalization of rows": Case(ROW, lambda x: layers.BatchNormalization(scale=False)(x)),
    "BatchNormalization over an inner axis": Case(IMAGE, lambda x: layers.BatchNormalization(axis=2)(x)),
    "BatchNormalization masked": _ids((None,), _embedded(lambda x: layers.BatchNormalization()(x))),
    "LayerNormalization": Case(ANY_LENGTH, lambda x: layers.LayerNormalization()(x)),
    "LayerNormalization of two axes": Case(IMAGE, lambda x: layers.LayerNormalization(axis=(-2, -1), center=False)(x)),
    "LayerNormalization of an inner axis": Case(IMAGE, lambda x: layers.LayerNormalization(axis=1)(x)),
    "GroupNormalization": Case(IMAGE, lambda x: layers.GroupNormalization(3)(x)),
    "GroupNormalization of every channel": Case(IMAGE, lambda x: layers.GroupNormalization(-1, scale=False)(x)),
    "GroupNormalization far from zero": Case(IMAGE, lambda x: layers.GroupNormalization(2)(x + 100.0)),
    "RMSNormalization": Case(ANY_LENGTH, lambda x: layers.RMSNormalization()(x)),
    "UnitNormalization": Case(SEQUENCE, lambda x: layers.UnitNormalization()(x)),
    "SpectralNormalization": Case(ROW, lambda x: layers.SpectralNormalization(layers.Dense(3))(x)),
    "SpectralNormalization of a convolution": Case(
        IMAGE, lambda x: layers.SpectralNormalization(layers.Conv2D(3, 3))(x)
    ),
    # Activations.
    "PReLU": Case(ROW, lambda x: layers.PReLU("uniform")(x)),
    "PReLU per channel": Case(IMAGE, lambda x: layers.PReLU("uniform", shared_axes=[1, 2])(x)),
    "PReLU per column": Case(IMAGE, lambda x: layers.PReLU("uniform", shared_axes=[1, 3])(x)),
    "Softmax": Case(SEQUENCE, lambda x: layers.Softmax(axis=1)(x)),
    "Softmax masked": Case(SEQUENCE, lambda x: layers.Softmax()(x, mask=x > 0.0)),
    "LeakyReLU": Case(ROW, lambda x: layers.LeakyReLU(0.2)(x)),
    "ReLU": Case(ROW, lambda x: layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)(x)),
    "ELU": Case(ROW, lambda x: layers.ELU(0.7)(x)),
    # Arrangement.
    "UpSampling1D": Case(ANY_LENGTH, lambda x: layers.UpSampling1D(2)(x)),
    "UpSampling2D": Case(IMAGE, lambda x: layers.UpSampling2D((2, 3))(x)),
    "UpSampling2D bilinear": Case(IMAGE, lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x)),
    "UpSampling2D on any size": Case((None, None, 3), lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x)),
    "UpSampling3D": Case(VOLUME, lambda x: layers.UpSampling3D(2)(x)),
    "ZeroPadding1D": Case(ANY_LENGTH, lambda x: layers.ZeroPadding1D((1, 2))(x)),
    "ZeroPadding2D": Case(IMAGE, lambda x: layers.ZeroPadding2D(((1, 2), (0, 3)))(x)),
    "ZeroPadding3D": Case(VOLUME, lambda x: layers.ZeroPadding3D(1)(x)),
    "Cropping1D": Case(ANY_LENGTH, lambda x: layers.Cropping1D((1, 2))(x)),
    "Cropping2D": Case(IMAGE, lambda x: layers.Cropping2D(((1, 2), (0, 3)))(x)),
    "Cropping3D": Case(VOLUME, lambda x: layers.Cropping3D(1)(x)),
    "Flatten": Case(IMAGE, lambda x: layers.Dense(3)(layers.Flatten()(x))),
    "Reshape": Case(IMAGE, lambda x: layers.Reshape((-1, 12))(x)),
    "Reshape on any length": Case((None, 6), lambda x: layers.Reshape((-1, 3))(x)),
    "Permute": Case(IMAGE, lambda x: layers.Permute((3, 1, 2))(x)),
    "RepeatVector": Case(ROW, lambda x: layers.RepeatVector(3)(x)),
    # Merging.
    "Add": Case(ROW, lambda x: layers.Add()([x, layers.Dense(6)(x)])),
    "Subtract": Case(ROW, lambda x: layers.Subtract()([x, layers.Dense(6)(x)])),
    "Multiply": Case(ROW, lambda x: layers.Multiply()([x, layers.Dense(6)(x)])),
    "Average": Case(ROW, lambda x: layers.Average()([x, layers.Dense(6)(x), x * 3.0])),
    "Maximum": Case(ROW, lambda x: layers.Maximum()([x, layers.Dense(6)(x)])),
    "Minimum": Case(ROW, lambda x: layers.Minimum()([x, layers.Dense(6)(x)])),
    "Concatenate": Case(ANY_LENGTH, lambda x: layers.Concatenate(axis=1)([x, layers.Dense(6)(x)])),
    "Dot": Case(SEQUENCE, lambda x: layers.Dot(axes=2, normalize=True)([x, x * 2.0])),
    # Regularisation: nothing at inference.
    **{
        name: Case(ROW, lambda x, n=name: getattr(layers, n)(0.3)(x))
        for name in ("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization")
    },
    "Dropout of whole rows": Case(SEQUENCE, lambda x: layers.Dropout(0.3, noise_shape=(None, 1, 6))(x)),
    "SpatialDropout1D": Case(SEQUENCE, lambda x: layers.SpatialDropout1D(0.3)(x)),
    "SpatialDropout2D": Case(IMAGE, lambda x: layers.SpatialDropout2D(0.3)(x)),
    "SpatialDropout3D": Case(VOLUME, lambda x: layers.SpatialDropout3D(0.3)(x)),
    # Numbers as they come.
    "Rescaling": _picture(lambda x: layers.Rescaling(1 / 255, 0.1)(x)),
    "Normalization": Case(ROW, lambda x: _normalization()(x)),
    "Discretization": Case(ROW, lambda x: layers.Discretization(bin_boundaries=[-0.5, 0.0, 0.7])(x)),
    "Discretization one-hot": Case(
        (1,), lambda x: layers.Discretization(bin_boundaries=[-0.5, 0.0, 0.7], output_mode="one_hot")(x)
    ),
    "CategoryEncoding": _ids((5,), lambda x: layers.CategoryEncoding(20, output_mode="multi_hot")(x)),
    "CategoryEncoding one-hot": _ids((1,), lambda x: layers.CategoryEncoding(20, output_mode="one_hot")(x)),
    "CategoryEncoding count": _ids((5,), lambda x: layers.CategoryEncoding(20, output_mode="count")(x)),
    "IntegerLookup": _ids((5,), lambda x: layers.IntegerLookup(vocabulary=[3, 5, 7], dtype="int32")(x)),
    "IntegerLookup one-hot": _ids(
        (1,), lambda x: layers.IntegerLookup(vocabulary=[3, 5, 7], output_mode="one_hot", dtype="int32")(x)
    ),
    "StringLookup": _words(lambda x: layers.StringLookup(vocabulary=["a", "b", "c"])(x)),
    "StringLookup multi-hot": _words(
        lambda x: layers.StringLookup(vocabulary=["a", "b", "c"], output_mode="multi_hot")(x)
    ),
    "TextVectorization": _words(
        lambda x: layers.TextVectorization(None, "lower", output_sequence_length=4, vocabulary=["a", "b", "c"])(x), ()
    ),
    "TextVectorization with punctuation": _words(
        lambda x: layers.TextVectorization(vocabulary=["a", "b", "c"], output_sequence_length=4)(x), ()
    ),
    "StringLookup with several words for the unknown": _words(
        lambda x: layers.StringLookup(vocabulary=["a", "b", "c"], num_oov_indices=3)(x)
    ),
    "Hashing": _ids((5,), lambda x: layers.Hashing(10)(x)),
    "HashedCrossing": _ids((1,), lambda x: layers.HashedCrossing(10)([x, x])),
    # Pictures.
    "Resizing": Case(IMAGE, lambda x: layers.Resizing(5, 11)(x)),
    "Resizing nearest": Case(IMAGE, lambda x: layers.Resizing(5, 11, interpolation="nearest")(x)),
    "Resizing bicubic": Case(IMAGE, lambda x: layers.Resizing(13, 12, interpolation="bicubic")(x)),
    "Resizing with antialias": Case(IMAGE, lambda x: layers.Resizing(4, 4, antialias=True)(x)),
    "Resizing with crop": Case(IMAGE, lambda x: layers.Resizing(4, 6, crop_to_aspect_ratio=True)(x)),
    "Resizing with pad": Case(IMAGE, lambda x: layers.Resizing(4, 6, pad_to_aspect_ratio=True)(x)),
    "Resizing from any size": Case((None, None, 3), lambda x: layers.Resizing(5, 6)(x)),
    "CenterCrop": Case(IMAGE, lambda x: layers.CenterCrop(5, 6)(x)),
    "CenterCrop larger": Case(IMAGE, lambda x: layers.CenterCrop(12, 10)(x)),
    "CenterCrop from any size": Case((None, None, 3), lambda x: layers.CenterCrop(5, 6)(x)),
    **{
        name: _picture(lambda x, n=name, a=arguments: getattr(layers, n)(*a)(x))
        for name, arguments in {
            "AugMix": (), "AutoContrast": (), "RandAugment": (), "RandomBrightness": (0.2,),
            "RandomColorDegeneration": (0.2,), "RandomColorJitter": (), "RandomContrast": (0.2,),
            "RandomCrop": (5, 6), "RandomElasticTransform": (), "RandomErasing": (), "RandomFlip": (),
            "RandomGaussianBlur": (), "RandomGrayscale": (), "RandomHue": (0.2,), "RandomInvert": (),
            "RandomPerspective": (), "RandomPosterization": (4,), "RandomRotation": (0.2,),
            "RandomSaturation": (0.2,), "RandomSharpness": (0.2,), "RandomShear": (), "RandomTranslation": (0.1, 0.1),
            "RandomZoom": (0.1,), "Solarization": (), "CutMix": (), "MixUp": (),
            "ContrastLimitedAdaptiveHistogramEqualization": (),
        }.items()
    },
    "Equalization": _picture(lambda x: Called(layers.Equalization())(x)),
    "Pipeline": _picture(lambda x: layers.Pipeline([layers.RandomFlip(), layers.Rescaling(1 / 255)])(x)),
    # Sound.
    "Matrices": Case((7, 9), lambda x: Matrices()(x)),
    "Elements": Case((7, 6), lambda x: Elements()(x)),
    "Frequencies": Case((7, 16), lambda x: Frequencies()(x)),
    "STFTSpectrogram": Case((64, 1), lambda x: layers.STFTSpectrogram(frame_length=16, frame_step=8)(x)),
    "STFTSpectrogram of any length": Case(
        (None, 1), lambda x: layers.STFTSpectrogram(frame_length=16, frame_step=8, mode="magnitude")(x)
    ),
    "MelSpectrogram": Case(
        (512,), lambda x: layers.MelSpectrogram(fft_length=64, sequence_stride=32, num_mel_bins=8, max_freq=4000)(x)
    ),
    # Whole models.
    "Sequential, nested and shared": Case(ROW, lambda x: _shared(x)),
    "Model, nested": Case(PICTURE, lambda x: _nested(x)),
    "Transformer on any length": _ids((None,), lambda x: _transformer(x)),
}  # fmt: skip
"""By name: the layer's class, and what is particular."""


def _reversible(ids: Any) -> Any:
    layer = layers.ReversibleEmbedding(20, 5)
    return layer(ops.tanh(layer(ids)), reverse=True)


def _shared(x: Any) -> Any:
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(6, activation="relu", name="d")], name="inner")
    return inner(inner(x))


def _nested(x: Any) -> Any:
    image = keras.Input(PICTURE)
    body = keras.Model(image, layers.BatchNormalization(name="norm")(_cnn(image)), name="body")
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(body(x)))


def _transformer(ids: Any) -> Any:
    x = layers.Embedding(20, 8, mask_zero=True, name="tokens")(ids)
    for index in range(2):
        y = layers.LayerNormalization(name=f"norm{index}a")(x)
        x = x + layers.MultiHeadAttention(2, 4, dropout=0.1, name=f"attention{index}")(y, y, use_causal_mask=True)
        y = layers.Dense(16, activation="gelu", name=f"up{index}")(layers.LayerNormalization(name=f"norm{index}b")(x))
        x = x + layers.Dropout(0.1)(layers.Dense(8, name=f"down{index}")(y))
    return layers.Dense(20, name="head")(x)


REFUSED = {
    "Hashing": "hashes by FarmHash",
    "HashedCrossing": "hashes by FarmHash",
    "TextVectorization with punctuation": "standardize",
    "StringLookup with several words for the unknown": "SipHash|hash",
}
"""What no graph of ONNX can compute, and what the error says of it."""

NOT_ALONE = {
    "Layer": "the base of every layer",
    "Wrapper": "the base of Bidirectional and TimeDistributed",
    "InputSpec": "no layer",
    "MaxNumBoundingBoxes": "takes bounding boxes, a dict; on images it is the identity",
    "FlaxLayer": "computes in JAX",
    "JaxLayer": "computes in JAX",
    "TorchModuleWrapper": "computes in torch: export the module itself",
    "TFSMLayer": "a SavedModel: its own test has it",
}
"""Names in `keras.layers` that are no case, and why."""


def missing() -> set[str]:
    """The layers of Keras, by class, that no case has."""
    tested = {getattr(layers, name.split()[0], None) for name in CASES}
    tested |= {type(layer) for layer in (layers.RNN(LeakyCell(2)), layers.LSTMCell(2))}
    classes = {name: found for name in dir(layers) if isinstance(found := getattr(layers, name), type)}
    return {name for name, found in classes.items() if found not in tested and name not in NOT_ALONE}


def model_of(name: str) -> keras.Model:
    """The model of a case, with weights that are not the trivial ones."""
    keras.utils.set_random_seed(0)
    case = CASES[name]
    x = keras.Input(case.shape, dtype=case.dtype, name="x")
    model = keras.Model(x, case.call(x))
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "float" in variable.dtype and "normalization/count" not in variable.path:
            low = 0.4 if "variance" in variable.path else -0.7
            variable.assign(rng.uniform(low, 0.9, variable.shape))
    return model


def inputs_of(name: str, batch: int, length: int) -> dict[str, np.ndarray]:
    """Inputs by name; sizes that may change are `length`."""
    case, rng = CASES[name], np.random.default_rng(batch)
    shape = (batch, *(length if size is None else size for size in case.shape))
    if case.values == "words":
        words = ["a", "b", "c", "d"] if case.shape else ["a b", "b, c a!", "D a d d a b", ""]
        return {"x": rng.choice(np.asarray(words, object), shape)}
    if case.values == "picture":
        return {"x": rng.uniform(0.0, 255.0, shape).astype("float32")}
    if case.values == "ids":
        ids = rng.integers(1, 20, shape).astype("int32")
        ends = rng.integers(1, shape[-1] + 1, (*shape[:-1], 1)) if shape[-1] > 1 else shape[-1]
        return {"x": np.where(np.arange(shape[-1]) < ends, ids, 0).astype("int32")}
    x = rng.standard_normal(shape).astype("float32")
    if "Masking" in name:
        x[:, -1] = 0.0
    return {"x": x}
