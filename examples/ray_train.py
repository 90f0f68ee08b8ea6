"""Two workers of Ray Train on this machine; it needs ``pip install 'ray[train]'``, after torch.

Ray starts the processes and the Trainer finds its place among them. The file comes back as a
checkpoint of Ray's: its metrics reach the driver with one, and only with one.
"""

import os
import secrets
import tempfile
from pathlib import Path

# Ray reads these when it is imported.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # telemetry is on unless told
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # so it listens on the loopback alone
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # of this run; else one goes to ~/.ray

import ray.train
from lightning.pytorch import Trainer
from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment, prepare_trainer
from ray.train.torch import TorchTrainer

from smx_export import export_onnx
from smx_lightning import SoftmaxRegression
from smx_lightning.data import DigitsDataModule


def train() -> None:
    """What each worker does."""
    data = DigitsDataModule()  # each worker gets its share of every batch
    model = SoftmaxRegression(data.num_features, data.num_classes, preprocessing="standardize")
    trainer = prepare_trainer(
        Trainer(
            accelerator="cpu",
            strategy=RayDDPStrategy(),
            plugins=[RayLightningEnvironment()],
            max_epochs=100,
            logger=False,
            enable_checkpointing=False,
        )
    )
    trainer.fit(model, data)
    metrics = dict(trainer.test(model, data)[0])
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = ray.train.Checkpoint(folder) if trainer.is_global_zero else None
        if checkpoint:
            export_onnx(model, Path(folder, "digits.onnx"))
        ray.train.report(metrics, checkpoint=checkpoint)  # by all: it waits for every worker


if __name__ == "__main__":
    # What the workers print stays in /tmp/ray; what they raise arrives here.
    with ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False):
        scaling = ray.train.ScalingConfig(num_workers=2)
        storage = ray.train.RunConfig(storage_path=str(Path.cwd() / "ray_results"))
        result = TorchTrainer(train, scaling_config=scaling, run_config=storage).fit()
    print("test accuracy", round(result.metrics["test/accuracy_micro"], 4))
    print(Path(result.checkpoint.path, "digits.onnx"))
