"""What corruptions are made of: changes of a graph in place."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from smx_export.artifact.files import sealed


def array(proto, name):
    """A copy of an initializer; its full name may be longer, as in ``model.smx.0.weight``."""
    return numpy_helper.to_array(initializer(proto, name)).copy()


def put(proto, **arrays):
    for name, values in arrays.items():
        tensor = initializer(proto, name)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), tensor.name))


def change(proto, name, where, by):
    values = array(proto, name)
    values[where] = by(values[where])
    put(proto, **{name: values})


def permute(proto, name, order, axis=0):
    put(proto, **{name: array(proto, name).take(order, axis)})


def initializer(proto, name):
    # Gemm's, where the end of a name is not enough: a backbone has weights of its own.
    gemm = next(node for node in proto.graph.node if node.op_type == "Gemm")
    full = {"weight": gemm.input[1], "bias": gemm.input[2]}.get(name, name)
    return next(tensor for tensor in proto.graph.initializer if tensor.name == full)


def node(proto, key):
    """The node that computes a tensor, or the one of that operator."""
    return next(n for n in proto.graph.node if key in n.output or key == n.op_type)


def rebuild(proto, position, new):
    nodes = [helper.make_node(*arguments, **attributes) for *arguments, attributes in new]
    old = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*old[:position], *nodes, *old[position:]])


def constant(proto, values, dtype=np.float32):
    name = f"constant_{len(proto.graph.initializer)}"
    proto.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))
    return name


def after(proto, tensor, *steps):
    """Let ``tensor`` pass through operators: steps (op_type, other inputs, attributes)."""
    producer = node(proto, tensor)
    producer.output[list(producer.output).index(tensor)] = f"{tensor}_0"
    _chain(proto, list(proto.graph.node).index(producer) + 1, f"{tensor}_0", tensor, steps)


def before(proto, tensor, *steps):
    """The same for a graph input: its readers read what comes out of the steps."""
    for reader in proto.graph.node:
        for i, name in enumerate(reader.input):
            if name == tensor:
                reader.input[i] = f"{tensor}_seen"
    _chain(proto, 0, tensor, f"{tensor}_seen", steps)


def _chain(proto, position, start, end, steps):
    names = [start, *(f"{end}_step_{i}" for i in range(1, len(steps))), end]
    rebuild(
        proto,
        position,
        [
            (op, [names[i], *others], [names[i + 1]], attributes)
            for i, (op, others, attributes) in enumerate(steps)
        ],
    )


def times(proto, tensor, factor):
    after(proto, tensor, ("Mul", [constant(proto, factor)], {}))


def clip(proto, low, high):
    return "Clip", [constant(proto, low), constant(proto, high)], {}


def cast(to):
    return "Cast", [], {"to": to}


def axis(proto, op_type, value):
    next(a for a in node(proto, op_type).attribute if a.name == "axis").i = value


def declared(proto, name):
    return next(v for v in (*proto.graph.input, *proto.graph.output) if v.name == name)


def metadata(proto, key, value):
    kept = [(e.key, e.value) for e in proto.metadata_props if e.key != key]
    del proto.metadata_props[:]
    helper.set_model_props(proto, dict(kept) | ({} if value is None else {key: value}))


def corrupted(path, corrupt, tmp_path):
    """The path of a spoilt copy, sealed again: the seal would show every one of them."""
    content = path.read_bytes()
    proto = onnx.load_model_from_string(content)
    spoilt = corrupt(proto)
    spoilt = sealed(proto) if spoilt is None else spoilt
    assert spoilt != content, "nothing was corrupted"
    copy = tmp_path / "corrupted.onnx"
    copy.write_bytes(spoilt)
    return copy
