"""One training script for one process and for many.

python several_processes.py
torchrun --nproc-per-node 2 several_processes.py
sbatch slurm.sh

The weights, the metrics and the file are the same: the batch size counts the rows of all processes
together. Killed at any moment and started again, it goes on where it was.
"""

import os

import torch
from lightning.pytorch import Trainer

from smx_export import export_onnx
from smx_lightning import Recovery, SoftmaxRegression
from smx_lightning.data import DigitsDataModule

torch.manual_seed(0)
data = DigitsDataModule(batch_size=256)
model = SoftmaxRegression(
    data.num_features, data.num_classes, class_names=data.class_names, preprocessing="standardize"
)
settings = os.environ  # torchrun sets the first of each two, SLURM the second
trainer = Trainer(
    devices=int(settings.get("LOCAL_WORLD_SIZE") or settings.get("SLURM_NTASKS_PER_NODE") or 1),
    num_nodes=int(settings.get("GROUP_WORLD_SIZE") or settings.get("SLURM_NNODES") or 1),
    max_epochs=50,
    callbacks=[Recovery()],
    logger=False,
)
trainer.fit(model, data)
trainer.test(model, data)
if trainer.is_global_zero:
    print(export_onnx(model, "digits.onnx").path)
