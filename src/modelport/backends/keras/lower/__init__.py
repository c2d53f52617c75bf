"""A traced TensorFlow graph as a portable graph: one short function per op and per layer, entered in `table`."""

from modelport.backends.keras.lower import (  # noqa: F401  (each enters its rows into the tables)
    branches,
    conv,
    flow,
    index,
    layers,
    linalg,
    lists,
    loops,
    math,
    nn,
    recurrent,
    reduce,
    shape,
    signal,
    words,
)
