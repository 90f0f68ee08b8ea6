"""What is not even a file, or not the whole of one."""

import onnx
from onnx import TensorProto, helper

from mutations.editing import initializer, node, rebuild
from mutations.models import BOTH
from mutations.table import Table
from smx_export import FileError

CASES = Table(*BOTH)


@CASES.seen_by(FileError)
def truncated(proto):
    return proto.SerializeToString()[:-40]


@CASES.seen_by(FileError)
def half_a_file(proto):
    content = proto.SerializeToString()
    return content[: len(content) // 2]


@CASES.seen_by(FileError)
def empty_file(proto):
    return b""


@CASES.seen_by(FileError)
def a_file_of_another_kind(proto):
    return b"\x89PNG\r\n\x1a\n" + bytes(100)


@CASES.seen_by(FileError)
def an_operator_nobody_knows(proto):
    node(proto, "probs").op_type = "Softmaxx"


@CASES.seen_by(FileError)
def a_node_that_nobody_feeds(proto):
    proto.graph.node.remove(node(proto, "scores"))


@CASES.seen_by(FileError)
def weights_in_another_file(proto):
    _send_away(initializer(proto, "weight"))


@CASES.seen_by(FileError)
def weights_of_a_constant_node_in_another_file(proto):
    weight = initializer(proto, "weight")
    rebuild(proto, 0, [("Constant", [], ["weight"], {"value": weight})])
    proto.graph.initializer.remove(weight)
    _send_away(node(proto, "weight").attribute[0].t)


@CASES.seen_by(FileError)
def weights_of_a_function_in_another_file(proto):
    weights_of_a_constant_node_in_another_file(proto)
    inside = onnx.FunctionProto(domain="local", name="Weight", output=["weight"])
    inside.opset_import.extend(proto.opset_import)
    inside.node.append(node(proto, "weight"))
    proto.functions.append(inside)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    node(proto, "weight").CopyFrom(helper.make_node("Weight", [], ["weight"], domain="local"))


def _send_away(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
