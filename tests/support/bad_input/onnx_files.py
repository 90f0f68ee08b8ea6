"""ONNX files that are missing, damaged, changed or point elsewhere."""

from bad_input.actions import BAD, FAILED, ship
from smx_export import FileError, OnnxClassifier

# fmt: off
CASES = [
    *((f"{what}: {name}", act(file), outcome, message)
      for name, file, message in [
          ("missing", "absent.onnx", "expected an ONNX file at absent.onnx, found none; check the"),
          ("a folder", "folder", "expected an ONNX file at folder, found none; check the path"),
          ("truncated", "truncated.onnx",
           "expected an ONNX …at truncated.onnx, got …pars…; …export it again"),
          ("random bytes", "random.onnx",
           "expected an ONNX …at random.onnx, got …pars…export it again"),
          ("a text", "text.onnx", "expected an ONNX …at text.onnx, got …pars…export it again"),
          ("empty", "empty.onnx", "expected an ONNX model at empty.onnx, got …graph…; export it"),
          ("an unknown operator", "nonsense.onnx",
           "expected …ONNX model at nonsense.onnx, got…Nonsense…; export it again"),
          ("data outside its folder", "box/outside.onnx",
           "expected …ONNX …at box/outside.onnx, got …weight…; …"),
      ]
      for what, act, outcome in [
          ("inspect", lambda file: ship(f"inspect {file}"), BAD),
          ("verify", lambda file: ship(f"verify {file} --checkpoint good.ckpt"), BAD),
          ("OnnxClassifier", lambda file: lambda: OnnxClassifier(file), FileError),
      ]),
    ("inspect: data in a constant beside it", ship("inspect box/constant.onnx"), BAD,
     "expected one self-contained ONNX file at box/constant.onnx, got …in another file; save it "
     "with its data inside"),
    ("verify: data in a constant beside it",
     ship("verify box/constant.onnx --checkpoint good.ckpt"), BAD,
     "expected one self-contained ONNX file at box/constant.onnx, got …in another file; save it "
     "with its data inside"),
    ("verify: another model's weights", ship("verify other.onnx --checkpoint good.ckpt"), FAILED,
     "FAIL log_probs against float64 …parity FAILED on"),
    ("verify: a weight changed", ship("verify changed.onnx --checkpoint good.ckpt"), FAILED,
     "FAIL seal changed since export …parity FAILED on"),
    ("verify: another width", ship("verify wide.onnx --checkpoint good.ckpt"), FAILED,
     "FAIL input expected input: float32 ['batch', 4], got input: float32 ['batch', 5]"),
    ("verify: other classes", ship("verify renamed.onnx --checkpoint good.ckpt"), FAILED,
     'FAIL class names expected ["0", "1", "2"], got ["a", "b", "c"]'),
    ("OnnxClassifier: no class names", lambda: OnnxClassifier("unnamed.onnx"), FileError,
     "expected a file exported by smx_export, …unnamed.onnx; export the model with smx-export"),
    ("OnnxClassifier: class names that are no JSON", lambda: OnnxClassifier("misnamed.onnx"),
     FileError, "expected a file exported by smx_export, …misnamed.onnx; export the model with"),
]
# fmt: on
