"""A training script as users start it: alone, with torchrun, or with srun (test_launchers.py)."""

import argparse
import os
import signal
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

from smx_lightning import Recovery, SoftmaxRegression
from smx_lightning.data import DigitsDataModule


class Began(Callback):
    """Keep the step at which training began: 0, or where a checkpoint left it."""

    def on_train_start(self, trainer, pl_module):
        self.step = trainer.global_step


class SignalOnce(Callback):
    """Send one rank a signal within or after a batch, unless a file says that it has been sent."""

    def __init__(self, name, rank, when, step, sent):
        self.signal, self.sent = signal.Signals[name], Path(sent)
        self.due = (int(rank), when, int(step))

    def on_before_backward(self, trainer, pl_module, loss):
        self.send(trainer, "within")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.send(trainer, "after")

    def send(self, trainer, when):
        here = (trainer.global_rank, when, trainer.global_step)
        if here == self.due and not self.sent.exists():
            self.sent.touch()
            os.kill(os.getpid(), self.signal)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("answer", help="the .npz file that rank zero writes")
    parser.add_argument("--devices", type=int, default=int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    parser.add_argument("--folder", help="of Lightning's checkpoints")
    parser.add_argument("--recover", type=int, help="steps between two of Recovery's checkpoints")
    parser.add_argument("--interrupt", nargs=5, help="see SignalOnce")
    given = parser.parse_args()

    torch.manual_seed(0)
    data = DigitsDataModule(batch_size=256)
    model = SoftmaxRegression(64, 10, preprocessing="standardize", l2=1e-3, optimizer=sgd)
    began = Began()
    callbacks = [began]
    if given.interrupt:
        callbacks.append(SignalOnce(*given.interrupt))
    if given.recover:
        callbacks.append(Recovery(every_n_steps=given.recover))
    trainer = Trainer(
        accelerator="cpu",
        devices=given.devices,
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        max_epochs=3,
        callbacks=callbacks,
        default_root_dir=given.folder,
        enable_checkpointing=bool(given.recover),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    learned = {"weight": model.linear.weight, "bias": model.linear.bias}
    answer = {name: parameter.detach().numpy().copy() for name, parameter in learned.items()}
    answer |= {"began": began.step, "steps": trainer.global_step, "world": trainer.world_size}
    answer |= trainer.test(model, data, verbose=False)[0]
    if trainer.is_global_zero:
        np.savez(given.answer, **answer)


if __name__ == "__main__":
    main()
