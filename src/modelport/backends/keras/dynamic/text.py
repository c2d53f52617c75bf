"""Strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from modelport.backends.keras.dynamic.table import dynamic, shape


@dynamic("StringConcat")
def string_concat(a: Any, b: Any) -> Any:
    whole = tf.broadcast_dynamic_shape(shape(a), shape(b))
    return tf.strings.join([tf.broadcast_to(a, whole), tf.broadcast_to(b, whole)])


@dynamic("StringSplit")
def string_split(x: Any, *, delimiter: str = "", maxsplit: int = -1) -> Any:
    parts = tf.strings.split(tf.reshape(x, (-1,)), delimiter or None, maxsplit)
    if not delimiter:
        # TensorFlow leaves an empty part behind where there is less to split than may be.
        parts = tf.ragged.boolean_mask(parts, parts != "")
    padded = parts.to_tensor(default_value="")
    sizes = shape(x)
    return tf.reshape(padded, tf.concat([sizes, shape(padded)[1:]], 0)), tf.reshape(parts.row_lengths(), sizes)


@dynamic("RegexFullMatch")
def regex_full_match(x: Any, *, pattern: str) -> Any:
    return tf.strings.regex_full_match(x, pattern)


@dynamic("StringNormalizer")
def string_normalizer(
    x: Any,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str = "en_US",
    stopwords: Sequence[str] = (),
) -> Any:
    words = tf.reshape(x, (-1,))
    if stopwords:
        fold = _same if is_case_sensitive else _lower
        stopped = tf.reduce_any(fold(words)[:, None] == fold(tf.constant(list(stopwords)))[None, :], 1)
        words = tf.boolean_mask(words, tf.logical_not(stopped))
    words = {"LOWER": _lower, "UPPER": _upper, "NONE": _same}[case_change_action](words)
    words = tf.cond(tf.size(words) == 0, lambda: tf.constant([""]), lambda: words)
    return words if x.shape.rank == 1 else words[None]


def _same(x: Any) -> Any:
    return x


def _lower(x: Any) -> Any:
    return tf.strings.lower(x, encoding="utf-8")


def _upper(x: Any) -> Any:
    return tf.strings.upper(x, encoding="utf-8")


@dynamic("Equal")
def equal(a: Any, b: Any) -> Any:
    return tf.equal(a, b)


@dynamic("TfIdfVectorizer")
def tf_idf_vectorizer(
    x: Any,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] = (),
    pool_strings: Sequence[str] = (),
    weights: Sequence[float] = (),
) -> Any:
    rows = x if x.shape.rank == 2 else x[None]
    pool = list(pool_strings or pool_int64s)
    counted, places = [], []
    gram = 0
    for length, (first, last) in enumerate(zip(ngram_counts, [*ngram_counts[1:], len(pool)], strict=True), 1):
        for start in range(first, last, length):
            if min_gram_length <= length <= max_gram_length:
                counted.append(_count(rows, pool[start : start + length], max_skip_count if length > 1 else 0))
                places.append(gram)
            gram += 1
    width = max(ngram_indexes) + 1
    columns = tf.constant([ngram_indexes[place] for place in places])
    table = tf.transpose(tf.math.unsorted_segment_sum(tf.stack(counted), columns, width))
    if mode != "TF":
        factors = list(weights) or [1.0] * gram
        table = tf.cast(table > 0, tf.float32) if mode == "IDF" else table
        scale = tf.math.unsorted_segment_sum(tf.constant([float(factors[i]) for i in places]), columns, width)
        table *= scale
    return table if x.shape.rank == 2 else table[0]


def _count(rows: Any, gram: Sequence[Any], skips: int) -> Any:
    """(rows,): how often an n-gram stands in each row, with up to so many elements between its own."""
    total = tf.zeros(shape(rows)[0], tf.float32)
    for gap in range(1, skips + 2):
        count = tf.maximum(shape(rows)[1] - gap * (len(gram) - 1), 0)
        hit = tf.ones((shape(rows)[0], count), tf.bool)
        for i, token in enumerate(gram):
            hit &= rows[:, i * gap : i * gap + count] == tf.constant(token, rows.dtype)
        total += tf.reduce_sum(tf.cast(hit, tf.float32), 1)
    return total
