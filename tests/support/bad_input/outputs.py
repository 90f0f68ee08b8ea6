"""Places to write to that are taken, forbidden, absent or full."""

import torch
from torch.utils.data import DataLoader

from bad_input.actions import (
    BAD,
    CONVERT,
    NPZ,
    RUN,
    VERIFY,
    fit,
    fit_file,
    on_a_full_disk,
    ship,
    train,
)
from bad_input.files import D, K, N, trainer
from smx_export import export_onnx
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsCsv

PREDICT = f"predict {RUN} {NPZ}=good.npz --ckpt_path=good.ckpt"
# Nobody, root included, can create files in /sys or /proc.
DENIED = "choose a folder that exists, is writable and has room"
DISK = "check the path, its permissions and the room on the disk"

# fmt: off
CASES = [
    ("output that is a folder", ship("convert good.ckpt folder"), BAD,
     "expected a file name to write to, got the folder folder; add a name"),
    ("output that is a pipe", ship("convert good.ckpt pipe"), BAD,
     "expected a file name to write to, got pipe, which is no regular file; choose another name"),
    ("output that is the checkpoint", ship("convert good.ckpt good.ckpt"), BAD,
     "expected another file than the checkpoint good.ckpt to write to; choose another name"),
    ("output into a missing folder", ship("convert good.ckpt absent/out.onnx"), BAD,
     f"expected to write absent/out.onnx, got: No such file or directory; {DENIED}"),
    ("output into a read-only folder", ship("convert good.ckpt /sys/out.onnx"), BAD,
     f"expected to write /sys/out.onnx, got: …; {DENIED}"),
    ("output into a read-only folder, from Python",
     lambda: SoftmaxRegression(D, K).to_onnx("/proc/out.onnx"), InputError,
     f"expected to write /proc/out.onnx, got: …; {DENIED}"),
    ("output name too long", ship(f"convert good.ckpt {300 * 'x'}.onnx"), BAD,
     f"expected to write {300 * 'x'}.onnx, got: File name too long; choose a"),
    ("output on a full disk", on_a_full_disk(ship(CONVERT)), BAD,
     f"expected to write out.onnx, got: File too large; {DENIED}"),
    ("output on a full disk, from Python",
     on_a_full_disk(lambda: export_onnx(SoftmaxRegression(D, K), "out.onnx")), InputError,
     f"expected to write out.onnx, got: File too large; {DENIED}"),
    ("report into a read-only folder", ship(f"{VERIFY} --json /sys/report.json"), BAD,
     f"expected to write /sys/report.json, got: …; {DENIED}"),
    ("report on a full disk", on_a_full_disk(ship(f"{VERIFY} --json report.json")), BAD,
     f"expected to write report.json, got: File too large; {DENIED}"),
    ("convert with its report into a missing folder",
     ship(f"{CONVERT} --json absent/report.json"), BAD,
     f"expected to write absent/report.json, got: No such file or directory; {DENIED}"),
    ("training with an export into a folder", fit("--onnx.path=folder"), BAD,
     "expected a file name to write to, got the folder folder; add a name"),
    ("training with an export that is read-only", fit("--onnx.path=/sys/out.onnx"), BAD,
     f"expected to write /sys/out.onnx, got: …; {DENIED}"),
    ("checkpoints into a read-only folder", fit("--checkpoint.dirpath=/sys/checkpoints"), BAD,
     f"expected to read and write /sys/checkpoints, got: …; {DISK}"),
    ("training on a full disk", on_a_full_disk(fit_file("good.npz", "--onnx.path=out.onnx")), BAD,
     f"expected to read and write files, got: File too large; {DISK}"),
    ("predictions into a folder", train(f"{PREDICT} --predictions.path=folder"), BAD,
     "expected a file name to write to, got the folder folder; add a name"),
    ("predictions into a read-only folder", train(f"{PREDICT} --predictions.path=/sys/p.csv"), BAD,
     f"expected to write /sys/p.csv, got: …; {DENIED}"),
    ("predictions on a full disk",
     on_a_full_disk(lambda: trainer(callbacks=[PredictionsCsv("predictions.csv")])
                    .predict(SoftmaxRegression(D, K), DataLoader(torch.zeros(N, D)))), InputError,
     f"expected to write predictions.csv, got: File too large; {DENIED}"),
    ("training over the config of another run", fit("--trainer.logger=false"), BAD,
     "expected no config.yaml of an earlier run in …; move it away, or train with a logger"),
]
# fmt: on
