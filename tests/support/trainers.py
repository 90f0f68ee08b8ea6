"""Trainers as the tests use them, in this process and in others."""

import socket

from lightning.pytorch import Trainer


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
