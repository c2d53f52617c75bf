"""Pads that the operator after them can make itself."""

from __future__ import annotations

import onnx_ir as ir

from modelport.graph.splice import is_op, only_use, scalar

_NOT_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus"})


def absorb_pads(model: ir.Model) -> int:
    """Let every Conv, AveragePool and MaxPool that alone reads a padding of zeros make it, in place.

    A MaxPool pads with what never wins, so it takes zeros only where no element is negative.

    Args:
        model: a normalised graph.

    Returns:
        How many Pads there were.
    """
    found = 0
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Pad" and not node.domain:
            found += _absorb(node)
    return found


def _absorb(pad: ir.Node) -> bool:
    window, widths = only_use(pad.outputs[0]), _spatial_zeros(pad)
    if window is None or widths is None or window.domain or window.inputs[0] is not pad.outputs[0]:
        return False
    count = len(widths) // 2
    pads = window.attributes.get_ints("pads") or (0,) * len(widths)
    if window.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or len(pads) != len(widths):
        return False
    match window.op_type:
        case "Conv":
            pass
        case "AveragePool":
            if any(pads) or window.attributes.get_int("ceil_mode", 0):
                return False
            window.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        case "MaxPool":
            kernel = window.attributes.get_ints("kernel_shape", ())
            inside = all(width < kernel[i % count] for i, width in enumerate(widths))
            indices = any(value.uses() or value.is_graph_output() for value in window.outputs[1:])
            if not inside or indices or any(pads) or window.attributes.get_int("ceil_mode", 0):
                return False
            if not _is_not_negative(pad.inputs[0]):
                return False
        case _:
            return False
    window.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(pads, widths, strict=True)])
    window.attributes.pop("auto_pad", None)
    window.replace_input_with(0, pad.inputs[0])
    return True


def _spatial_zeros(pad: ir.Node) -> tuple[int, ...] | None:
    """Begins and ends of the spatial axes, where a Pad puts zeros there and nothing elsewhere."""
    data, widths, value, axes = (*pad.inputs, None, None, None)[:4]
    if pad.attributes.get_string("mode", "constant") != "constant" or data is None or data.shape is None:
        return None
    if widths is None or widths.const_value is None or (value is not None and scalar(value) != 0):
        return None
    rank, numbers = len(data.shape), widths.const_value.numpy().tolist()
    named = list(range(rank))
    if axes is not None:
        if axes.const_value is None:
            return None
        named = [axis % rank for axis in axes.const_value.numpy().tolist()]
    begins, ends = [0] * rank, [0] * rank
    for place, axis in enumerate(named):
        begins[axis], ends[axis] = numbers[place], numbers[place + len(named)]
    if rank < 3 or min(begins + ends) < 0 or any(begins[:2] + ends[:2]):
        return None
    return (*begins[2:], *ends[2:])


def _is_not_negative(value: ir.Value | None) -> bool:
    if is_op(value, *_NOT_NEGATIVE):
        return True
    node = None if value is None else value.producer()
    if node is None or not is_op(value, "Clip") or len(node.inputs) < 2:
        return False
    low = scalar(node.inputs[1])
    return low is not None and low >= 0
