"""Names are made valid, stay different, and valid names stay as they are."""

from __future__ import annotations

import keyword

import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from modelport.graph.names import dotted_names, identifiers, join_name, make_names_unique, split_name, unique_name

texts = st.lists(st.one_of(st.text(max_size=6), st.from_regex(r"[ab](\.[ab01])*", fullmatch=True)), unique=True)


@given(texts, st.sets(st.sampled_from(["a", "b", "_0"])))
def test_identifiers_are_valid_and_all_different(names, taken):
    found = identifiers(names, taken)

    assert list(found) == names
    assert all(name.isidentifier() and not keyword.iskeyword(name) for name in found.values())
    assert len(set(found.values())) == len(names)
    assert not taken & set(found.values())
    stay = {name for name in names if name.isidentifier() and name.isascii() and not keyword.iskeyword(name)} - taken
    assert all(found[name] == name for name in stay)


@given(texts)
def test_dotted_names_are_valid_different_and_no_path_of_each_other(names):
    found = dotted_names(names)

    assert list(found) == names
    values = list(found.values())
    assert len(set(values)) == len(names)
    for name in values:
        assert all(part for part in name.split("."))
        assert not any(other.startswith(f"{name}.") for other in values)


@given(st.lists(st.from_regex(r"[ab](\.[ab01])*\.weight", fullmatch=True), unique=True))
def test_portable_names_stay_as_they_are(names):
    assert dotted_names(names) == {name: name for name in names}


@given(st.from_regex(r"[a-z0-9]+(\.[a-z0-9]+)*", fullmatch=True))
def test_a_name_is_its_path_and_its_leaf(name):
    assert join_name(*split_name(name)) == name


def test_a_taken_name_gets_a_number():
    assert unique_name("a", {"a", "a_1"}) == "a_2"
    assert unique_name("b", {"a"}) == "b"


def test_no_two_values_or_nodes_of_a_model_have_the_same_name() -> None:
    model = ir.from_onnx_text("""<ir_version: 10, opset_import: ["" : 21]>
    g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
        p = If(c) <then_branch = t () => (float[2] a) { [drop] v = Neg(x) a = Add(v, w) },
                   else_branch = e () => (float[2] b) { v = Abs(x) b = Mul(v, x) }>
        v = Relu(p)
        [drop] q, "" = Dropout(v)
        y = Add(q, w)
    }""")
    make_names_unique(model)
    made = [value for node in model.graph.all_nodes() for value in node.outputs]
    assert [value.name for value in made if not value.uses() and not value.is_graph_output()] == [""]
    names = [value.name for value in made if value.name]
    assert len(set(names)) == len(names)
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["c", "x", "y"]
    assert model.graph[1].outputs[0].name == "v"
    assert list(model.graph.initializers) == ["w"]
    nodes = [node.name for node in model.graph.all_nodes() if node.name]
    assert sorted(nodes) == ["drop", "drop_1"]
