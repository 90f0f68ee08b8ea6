"""Which profiles a corruption is for, and changes of their graphs in place."""

import numpy as np
import profiled
from onnx import helper, numpy_helper

from mutations import editing
from mutations.editing import node

EVERY = tuple(profiled.PROFILES)
FLOAT32 = ("portable", "robust", "image", "robust image")
ROBUST = ("robust", "robust image", "int8 image robust")
INT8 = ("int8", "int8 image robust")
IMAGE = ("image", "robust image", "int8 image robust")
THRESHOLD = "threshold"  # a model of two classes


def change(proto, name, by):
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(by(values.copy()), values.dtype), name))


def weights(proto):
    return "stored" if any(t.name == "stored" for t in proto.graph.initializer) else "weight"


def entry(where, by):
    def changed(values):
        values[where] = by(values[where])
        return values

    return changed


def attribute(proto, key, **values):
    kept = [a for a in node(proto, key).attribute if a.name not in values]
    del node(proto, key).attribute[:]
    node(proto, key).attribute.extend([*kept, *map(helper.make_attribute, values, values.values())])


def skip(proto, key):
    """Leave a node out: what read its output reads its first input."""
    gone = node(proto, key)
    proto.graph.node.remove(gone)
    for reader in proto.graph.node:
        reader.input[:] = [gone.input[0] if of == gone.output[0] else of for of in reader.input]


def replace(proto, key, *new):
    """Other nodes in the place of one: (op_type, inputs, outputs, attributes)."""
    at = list(proto.graph.node).index(node(proto, key))
    nodes = [helper.make_node(*made, **attributes) for *made, attributes in new]
    old = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*old[:at], *nodes, *old[at + 1 :]])


def after(proto, tensor, op_type, *others, **attributes):
    """One more operator between a tensor and its readers, the file's outputs included."""
    editing.after(proto, tensor, (op_type, others, attributes))
