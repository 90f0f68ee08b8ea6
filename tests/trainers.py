"""Trainers as the tests use them, in this process and in others."""

import functools
import os
import socket

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from smx_lightning import SoftmaxRegression
from smx_lightning.optim import ExactSolver


def quiet_trainer(**kwargs):
    """A CPU trainer that prints and writes nothing."""
    return Trainer(
        **{
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 1,
            **kwargs,
        }
    )


def free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def exact_rank(rank, port, x, y, l2, answers):
    """One of two processes: the Trainer's DDP over gloo, every second row."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
        "LOCAL_RANK": str(rank),
        "RANK": str(rank),
    }
    torch.set_num_threads(1)
    share, labels = torch.tensor(x[rank::2]), torch.tensor(y[rank::2]).long()
    parts = list(zip(share.split(100), labels.split(100), strict=True))
    torch.manual_seed(rank)  # DDP starts both from rank 0's weights
    model = SoftmaxRegression(
        x.shape[1], int(max(y)) + 1, l2=l2, optimizer=functools.partial(ExactSolver, tol=1e-9)
    )
    trainer = quiet_trainer(
        devices=2,
        strategy="ddp",
        max_epochs=300,
        precision="64-true",
        use_distributed_sampler=False,
    )
    trainer.fit(model, DataLoader(parts, batch_size=None))
    answers[rank] = model.linear.weight.detach().numpy(), model.solver.status.name
