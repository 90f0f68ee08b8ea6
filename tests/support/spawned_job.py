"""Train, test and predict under one of Lightning's strategies; print what the caller is left with.

Arguments: the strategy, and a folder to write into. With a third one the run is to be refused.
"""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import TensorDataset
from trainers import quiet_trainer

from smx_export import OnnxExport
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import ConfusionCsv, PredictionsCsv
from smx_lightning.data import BatchLoader
from smx_lightning.optim import ExactSolver


def loader(rows=51):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 4, generator=generator)
    noise = torch.randn(rows, generator=generator)
    return BatchLoader(TensorDataset(x, (x[:, 0] + noise > 0).long()), batch_size=16)


def trained(strategy, folder):
    model = SoftmaxRegression(4, 2, optimizer=ExactSolver, l2=1e-2, preprocessing="standardize")
    kept = ModelCheckpoint(folder / "kept", monitor="val/nll")
    export, written = OnnxExport(str(folder / "model.onnx")), PredictionsCsv()
    trainer = quiet_trainer(
        max_epochs=50,
        strategy=strategy,
        devices=1 if strategy == "auto" else 2,
        logger=CSVLogger(folder, name="log"),
        log_every_n_steps=1,
        enable_checkpointing=True,
        callbacks=[kept, export, written, confusion := ConfusionCsv()],
    )
    trainer.fit(model, loader(), loader())
    solver = model.solver
    answer = {
        "status": solver.status.name,
        "objective": solver.evaluation.objective,
        "the epochs are the solver's": solver.evaluations == trainer.current_epoch,
        "a step is an epoch": trainer.global_step == trainer.current_epoch,
        "summary": model.training_summary()["metrics"],
        "its epochs": model.training_summary()["epochs"] == trainer.current_epoch,
        "weight": model.linear.weight.tolist(),
        "the solver holds the weights": solver.weight is model.linear.weight,
        "best": round(float(kept.best_model_score), 5),
        "best is there": Path(kept.best_model_path).is_file(),
        "optimizer": model.hparams["optimizer"]["class_path"],
        "exported": [export.export.path.name, export.export.report.passed],
    }
    trainer.test(model, loader(), verbose=False)
    trainer.predict(model, loader(), return_predictions=strategy == "auto")
    return {
        **answer,
        "confusion": model.confusion_matrix.tolist(),
        "written": [confusion.written.name, written.written.name],
        "labels": written.prediction.label.tolist(),
        "probs": written.prediction.probs.tolist(),
        "still there": model.solver.status.name,
        "folders": sorted(path.name for path in (folder / "log").iterdir()),
        "metrics": ["train/nll" in line for line in _logged(folder)].index(True),
    }


def _logged(folder):
    return (folder / "log" / "version_0" / "metrics.csv").read_text().splitlines()


def refused(strategy):
    model = SoftmaxRegression(4, 3, class_weight="balanced")
    try:
        quiet_trainer(strategy=strategy, devices=2).fit(model, loader())
    except InputError as error:
        return str(error)
    return "nothing"


if __name__ == "__main__":
    torch.manual_seed(0)
    found = refused(sys.argv[1]) if sys.argv[3:] else trained(sys.argv[1], Path(sys.argv[2]))
    print("\nANSWER", json.dumps(found))
