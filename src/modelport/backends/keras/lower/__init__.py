"""A traced TensorFlow graph as a portable graph: one short function per op and per layer, entered in `table`."""

from modelport.backends.keras.lower import (  # noqa: F401  (each enters its rows into the tables)
    branches,
    conv,
    flow,
    image,
    index,
    layers,
    linalg,
    lists,
    loops,
    loss,
    math,
    nn,
    random,
    recurrent,
    reduce,
    shape,
    signal,
    words,
)
