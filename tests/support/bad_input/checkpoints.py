"""Checkpoints that are missing, damaged, hostile, of another module or of another shape."""

from bad_input.actions import BAD, CONVERT, FAILED, NPZ, RUN, fit, ship, train
from smx_export import export_onnx
from smx_lightning import InputError

# fmt: off
CASES = [
    ("missing checkpoint", ship("convert absent.ckpt out.onnx"), BAD,
     "expected a checkpoint at absent.ckpt, found none; check the path"),
    ("missing checkpoint, from Python", lambda: export_onnx("absent.ckpt", "out.onnx"), InputError,
     "expected a checkpoint at absent.ckpt, found none; check the path"),
    ("checkpoint that is a folder", ship("convert folder out.onnx"), BAD,
     "expected a checkpoint at folder, found none; check the path"),
    ("checkpoint of another module", ship("convert alien.ckpt out.onnx"), BAD,
     "expected a checkpoint of SoftmaxRegression or a subclass at alien.ckpt, got one of another "
     "module; export it with the tools of its own project"),
    ("checkpoint of a subclass", ship("convert subclass.ckpt out.onnx"), BAD,
     "expected a checkpoint of smx_lightning.module.SoftmaxRegression, got one of "
     "bad_input.files.Halved in subclass.ckpt; name the class with --model-class "
     "bad_input.files:Halved"),
    ("model class that cannot be imported", ship(f"{CONVERT} --model-class absent:Net"), BAD,
     "expected --model-class MODULE:CLASS, got 'absent:Net' (No module named 'absent'); run where "
     "MODULE can be imported"),
    ("model class that is not there", ship(f"{CONVERT} --model-class smx_lightning:Net"), BAD,
     "expected --model-class MODULE:CLASS, got 'smx_lightning:Net' (module 'smx_lightning' has no "
     "attribute 'Net'); run where MODULE can be imported"),
    ("model class without a module", ship(f"{CONVERT} --model-class Net"), BAD,
     "expected --model-class MODULE:CLASS, got 'Net' (No module named 'Net'); run where"),
    ("model class of a relative module", ship(f"{CONVERT} --model-class .net:Net"), BAD,
     "expected --model-class MODULE:CLASS, got '.net:Net' (…); run where MODULE can be imported"),
    ("model class that is no subclass", ship(f"{CONVERT} --model-class smx_lightning:InputError"),
     BAD, "expected a subclass of SoftmaxRegression, got 'smx_lightning:InputError'"),
    ("checkpoint that is a text", ship("convert text.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at text.ckpt, got a file that torch cannot read; it may be "
     "truncated or of another kind"),
    ("checkpoint of random bytes", ship("convert random.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at random.ckpt, got a file that torch cannot read; it"),
    ("checkpoint that is empty", ship("convert empty.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at empty.ckpt, got a file that torch cannot read; it"),
    ("checkpoint cut short", ship("convert truncated.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at truncated.ckpt, got a file that torch cannot read; it"),
    ("checkpoint that would run code", ship("convert bomb.ckpt out.onnx"), BAD,
     "expected a checkpoint of plain data at bomb.ckpt, got a file that torch will not load without"
     " running code from it; save it again with smx_lightning"),
    ("pickle that would run code", ship("convert pickle.ckpt out.onnx"), BAD,
     "expected a …heckpoint …at pickle.ckpt, got a file that torch …"),
    ("verify by a checkpoint that would run code",
     ship("verify good.onnx --checkpoint bomb.ckpt"), BAD,
     "expected a checkpoint of plain data at bomb.ckpt, got a file that torch will not load"),
    ("test of a checkpoint that would run code",
     train(f"test {RUN} {NPZ}=good.npz --ckpt_path=bomb.ckpt"), BAD,
     "expected a checkpoint of plain data at bomb.ckpt, got a file that torch will not load"),
    ("checkpoint without state_dict", ship("convert stateless.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at stateless.ckpt, got a torch file without a state_dict; "
     "save one with trainer.save_checkpoint"),
    ("checkpoint that is a tensor", ship("convert tensor.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at tensor.ckpt, got a torch file without a state_dict; save"),
    ("checkpoint with half its notes", ship("convert forged.ckpt out.onnx"), BAD,
     "expected a checkpoint of SoftmaxRegression or a subclass at forged.ckpt, got one of another"),
    ("checkpoint whose shapes do not fit", ship("convert misfit.ckpt out.onnx"), BAD,
     "expected a checkpoint …, got…size mismatch for preprocessing.mean…; was the class changed "
     "since it was saved?"),
    ("checkpoint of one class", ship("convert one_class.ckpt out.onnx"), BAD,
     "num_classes must be at least 2, got 1"),
    ("checkpoint of NaN weights", ship("convert nan.ckpt out.onnx"), BAD,
     "expected finite weights, got NaN or infinity in smx.0.weight; train the model again"),
    ("weights beyond float32", ship("convert huge.ckpt out.onnx"), FAILED,
     "the ONNX file is not the model: NaN and infinity: …log_probs is not finite where "
     "the answer is"),
    ("resume from a missing checkpoint", fit("--ckpt_path=absent.ckpt"), BAD,
     "expected a checkpoint at absent.ckpt, found none; check the path"),
    ("resume from another module's", fit("--ckpt_path=alien.ckpt"), BAD,
     "expected a checkpoint of SoftmaxRegression or a subclass at alien.ckpt, got one of another "),
    ("test on data of another width",
     train(f"test {RUN} {NPZ}=wide.npz --ckpt_path=good.ckpt"), BAD,
     "expected a checkpoint of 5 features and 3 classes, …got one of 4 features and 3 classes; "),
    ("test on data of other classes",
     train(f"test {RUN} {NPZ}=named.npz --ckpt_path=good.ckpt"), BAD,
     "expected a checkpoint of the classes ['cat', 'dog', 'emu'], …got one of ['0', '1', '2']; "),
    ("test of the best of no training", train(f"test {RUN} {NPZ}=good.npz --ckpt_path=best"), BAD,
     '`.test(ckpt_path="best")` is set but `ModelCheckpoint` is not configured to save the best'),
]
# fmt: on
