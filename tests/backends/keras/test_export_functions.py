"""TensorFlow's functions in a `tf.Module`: what leaves computes in ONNX Runtime what TensorFlow computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import modelport as mp
from modelport.core.errors import UnsupportedOpError

RNG = np.random.default_rng(0)
ROWS = RNG.random((3, 6)).astype("float32")
IMAGES = RNG.random((2, 8, 8, 3)).astype("float32")
STEPS = RNG.random((2, 5, 4)).astype("float32")

ON_ROWS: dict[str, Callable[[Any], Any]] = {
    "bounds": lambda x: tf.searchsorted([0.2, 0.5], tf.reshape(x, [-1]), side="right"),
    "an inverted permutation": lambda x: tf.math.invert_permutation(tf.argsort(x[0])),
    "segments": lambda x: tf.math.unsorted_segment_max(tf.transpose(x), [0, 0, 2, 2, 2, -1], 4),
    "sorted segments": lambda x: tf.math.segment_sum(tf.transpose(x), [0, 0, 1, 1, 3, 3]),
    "sorted segments that multiply": lambda x: tf.math.segment_prod(tf.transpose(x), [0, 0, 1, 1, 3, 3]),
    "cross entropy": lambda x: tf.nn.softmax_cross_entropy_with_logits(x, 1 - x),
    "cross entropy of classes": lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits(tf.argmax(x, 1), x),
    "simulated quantization": lambda x: tf.quantization.fake_quant_with_min_max_vars(x, -0.1, 0.8),
    "simulated quantization by attributes": lambda x: tf.quantization.fake_quant_with_min_max_args(x, 0.1, 0.8),
    "simulated quantization of four bits": lambda x: tf.quantization.fake_quant_with_min_max_vars_per_channel(
        x, [-0.1] * 6, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], num_bits=4, narrow_range=True
    ),
    "a cosine transform": lambda x: tf.signal.dct(x),
    "complex products": lambda x: tf.abs(tf.signal.ifft(tf.signal.fft(tf.cast(x, tf.complex64)) * tf.complex(x, -x))),
    "angles": lambda x: tf.math.angle(tf.complex(x - 0.5, x * 0 + [0, 1, -1, 2, 0, 0])),
    "conjugates": lambda x: tf.math.angle(tf.math.conj(tf.complex(x - 0.5, x))),
    "unique numbers": lambda x: tf.unique(tf.cast(x[0] * 4, tf.int32))[1],
    "shifts": lambda x: tf.bitwise.right_shift(tf.cast(x * 99 - 50, tf.int32), 2),
    "a shape that two stretch to": lambda x: tf.zeros(tf.broadcast_dynamic_shape(tf.shape(x), tf.shape(x[:, :1]))) + x,
    "a diagonal beside the main one": lambda x: tf.linalg.diag(x, k=-1, padding_value=2.0),
    "text of numbers": lambda x: tf.strings.as_string(tf.cast(x * 9, tf.int32)),
}

ON_IMAGES: dict[str, Callable[[Any], Any]] = {
    "hue, saturation and value": lambda x: tf.image.rgb_to_hsv(tf.concat([x, x * [[1.0, 0, 0]], x * 0], 1)),
    "and back": lambda x: tf.image.hsv_to_rgb(x),
    "another hue": lambda x: tf.image.adjust_hue(x, 0.3),
    "another saturation": lambda x: tf.image.adjust_saturation(x, 0.5),
    "another contrast": lambda x: tf.image.adjust_contrast(x, 2.0),
    "patches": lambda x: tf.image.extract_patches(x, [1, 3, 2, 1], [1, 2, 2, 1], [1, 2, 1, 1], "SAME"),
    "areas": lambda x: tf.image.resize(x, [4, 2], "area"),
    "boxes": lambda x: tf.image.non_max_suppression(tf.reshape(x, [-1, 4])[:20], tf.reshape(x, [-1])[:20], 5, 0.3, 0.2),
}

ON_STEPS: dict[str, Callable[[Any], Any]] = {
    "reversed sequences": lambda x: tf.reverse_sequence(x, tf.fill([tf.shape(x)[0]], 3), 1),
    "sequences reversed along the last axis": lambda x: tf.reverse_sequence(x, [3, 1, 2, 4, 2], 2, 1),
    "cepstral coefficients": lambda x: tf.signal.mfccs_from_log_mel_spectrograms(x),
}

CASES = {
    name: (function, array)
    for table, array in ((ON_ROWS, ROWS), (ON_IMAGES, IMAGES), (ON_STEPS, STEPS))
    for name, function in table.items()
}


def module_of(function: Callable[[Any], Any], array: np.ndarray) -> tf.Module:
    class Computing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, *array.shape[1:]], array.dtype)])
        def __call__(self, x: Any) -> Any:
            return function(x)

    return Computing()


@pytest.mark.parametrize("name", CASES)
def test_a_function_computes_the_same_in_onnx_runtime(name: str) -> None:
    function, array = CASES[name]
    moved = mp.transfer(module_of(function, array), to="onnx", example=array)
    assert not moved.report.notes
    expected = np.asarray(function(tf.constant(array)))
    found = moved(array)
    if expected.dtype == object:
        expected = np.char.decode(expected.astype("S"), "utf-8").astype(object)
    assert found.shape == expected.shape
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    else:
        assert (found == expected).all()


def test_random_numbers_are_drawn_anew_and_that_is_said() -> None:
    module = module_of(lambda x: x + tf.random.normal(tf.shape(x)) + tf.random.uniform([6]), ROWS)
    moved = mp.transfer(module, to="onnx", example=ROWS, check=False)
    assert {note.kind for note in moved.report.notes} == {"changed"}
    drawn = np.stack([moved(ROWS) - ROWS for _ in range(300)])
    assert abs(drawn.mean() - 0.5) < 0.05
    assert abs(drawn.var() - 1 - 1 / 12) < 0.1


def test_complex_numbers_beyond_transforms_are_refused_by_name() -> None:
    module = module_of(lambda x: tf.abs(tf.exp(tf.complex(x, x))), ROWS)
    with pytest.raises(UnsupportedOpError, match="Exp has no portable form for complex numbers"):
        mp.transfer(module, to="onnx", example=ROWS)
