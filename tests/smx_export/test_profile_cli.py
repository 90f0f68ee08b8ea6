"""Profiles from the command lines and the callback; the input range on its way to the file."""

import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import profiled
import pytest
import torch
import yaml
from sampled import whole

from smx_export import OnnxClassifier, OnnxExport, ParityError, Profile, export_onnx
from smx_export.__main__ import main as smx_export
from smx_export.artifact.sidecar import sidecar
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.cli import main as smx_lightning

SHORT = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
]
ADAM = "--model.optimizer=torch.optim.Adam"
LABELLED = "--data digits.npz"
PROBES = """
from smx_lightning import SoftmaxRegression

class Own(SoftmaxRegression):
    def __init__(self, num_classes: int):
        super().__init__(8, num_classes, input_shape=(8, 8), input_range=(0, 16))

    def features(self, x):
        return (x / 16).mean(1)

class Ignorant(Own):
    def __init__(self, num_classes: int, class_names: list[str] | None = None):
        SoftmaxRegression.__init__(
            self, 8, num_classes, class_names=class_names, input_shape=(8, 8)
        )

class Taking(Own):
    def __init__(self, num_classes: int, input_range: tuple[float, float] | None = None):
        SoftmaxRegression.__init__(
            self, 8, num_classes, input_shape=(8, 8), input_range=input_range
        )
"""


@pytest.fixture
def folder(cli_folder, checkpoint, digits):
    """A checkpoint that does not know its input range, and labelled rows."""
    Path("digits.ckpt").write_bytes(checkpoint.read_bytes())
    rows = digits.splits.test
    np.savez("digits.npz", x=rows.x.numpy(), y=rows.y.numpy())
    return cli_folder


def stored_profile(path):
    (text,) = (e.value for e in onnx.load(path).metadata_props if e.key == "profile")
    return Profile.from_json(text)


def names():
    return sorted(str(path) for path in Path().iterdir())


# smx-export convert --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "profile"),
    [
        ("", Profile()),
        (
            "--profile robust,image --outputs log_probs,label --input-range 0 16",
            Profile(robust=True, image=True, outputs=("log_probs", "label")),
        ),
        (f"--profile compact {LABELLED}", Profile(weights="int8")),
        (
            f"--profile compact --weights float16 {LABELLED} "
            "--max-accuracy-loss 0.1 --max-nll-increase 0.2",
            Profile(weights="float16", max_accuracy_loss=0.1, max_nll_increase=0.2),
        ),
        ("--weights float16 --outputs scores", Profile(outputs=("scores",))),
    ],
)
def test_convert_takes_a_profile_and_the_other_commands_read_it(options, profile, folder, capsys):
    options = shlex.split(options)
    assert smx_export(["convert", "digits.ckpt", "m.onnx", "--sidecar", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("wrote ")][-1] == "wrote m.json"
    assert stored_profile("m.onnx") == profile
    assert json.loads(Path("m.json").read_text()) == sidecar("m.onnx")
    told = {"input": ("uint8", [8, 8]) if profile.image else ("float32", [64])}
    described = json.loads(Path("m.json").read_text())
    assert (described["input"]["dtype"], described["input"]["shape"]) == told["input"]
    assert tuple(described["outputs"]) == profile.outputs
    verify = ["verify", "m.onnx", "--checkpoint", "digits.ckpt", *shlex.split(LABELLED)]
    assert smx_export(verify) == 0
    assert smx_export(["selftest", "m.onnx"]) == 0
    assert smx_export(["inspect", "m.onnx"]) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--profile tiny", "expected a profile out of portable, robust, compact, image"),
        ("--outputs label,logits", "expected outputs out of log_probs, probs, scores, label"),
        ("--outputs label,label", "each once, got label, label"),
        ("--outputs ''", "expected outputs out of"),
        ("--profile compact", "give it with --data FILE.npz"),
        (f"--profile compact {LABELLED} --max-accuracy-loss -1", "max_accuracy_loss must be"),
        (f"--profile compact {LABELLED} --max-nll-increase nan", "max_nll_increase must be"),
        ("--profile image --input-range 16 0", "input_range must be two finite numbers"),
        ("--input-range 0 inf", "input_range must be two finite numbers"),
    ],
)
def test_bad_values_are_exit_code_2_in_one_sentence(options, words, folder, capsys):
    before = names()
    arguments = ["m.onnx", "--sidecar", "--json", "r.json", *shlex.split(options)]
    assert smx_export(["convert", "digits.ckpt", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("smx-export: ")
    assert words in line
    assert names() == before


@pytest.mark.parametrize(
    "options", ["--weights int4", "--input-range 0", "--input-range a b", "--max-nll-increase x"]
)
def test_what_the_parser_refuses_is_exit_code_2(options, folder, capsys):
    before = names()
    with pytest.raises(SystemExit) as stop:
        smx_export(["convert", "digits.ckpt", "m.onnx", *shlex.split(options)])
    assert stop.value.code == 2
    assert options.split()[0] in capsys.readouterr().err
    assert names() == before


def test_a_budget_that_is_exceeded_is_exit_code_1(folder, capsys):
    options = f"--profile compact --max-nll-increase 0 {LABELLED} --json r.json --sidecar"
    worse = torch.load("digits.ckpt", weights_only=True)  # 5 epochs: rounding might even help it
    worse["state_dict"]["smx.0.weight"] *= 20
    del worse["smx_lightning_sha256"]  # else it would be taken for damaged
    torch.save(worse, "digits.ckpt")
    assert smx_export(["convert", "digits.ckpt", "m.onnx", *shlex.split(options)]) == 1
    assert "NLL after rounding" in capsys.readouterr().err
    report = json.loads(Path("r.json").read_text())
    assert report["passed"] is False
    assert report["rounding"]["nll"] > report["rounding"]["nll_before"]
    assert names() == ["digits.ckpt", "digits.npz", "r.json"]


@pytest.mark.parametrize(
    "options",
    [
        "convert digits.ckpt m.onnx --json m.json --sidecar",
        "convert digits.ckpt m.json --sidecar",
        "convert digits.ckpt m.onnx --json m.onnx",
        "convert digits.ckpt m.onnx --json digits.ckpt",
        f"convert digits.ckpt m.onnx --json digits.npz {LABELLED}",
        f"convert digits.ckpt digits.npz {LABELLED}",
        "verify old.onnx --checkpoint digits.ckpt --json old.onnx",
        "verify old.onnx --checkpoint digits.ckpt --json digits.ckpt",
    ],
)
def test_no_file_takes_the_place_of_another(options, folder, capsys):
    export_onnx("digits.ckpt", "old.onnx")
    before = {name: Path(name).read_bytes() for name in names()}
    assert smx_export(shlex.split(options)) == 2
    assert "choose another name" in capsys.readouterr().err
    assert {name: Path(name).read_bytes() for name in names()} == before


def test_a_range_that_contradicts_the_checkpoint_is_refused(folder, capsys):
    content = torch.load("digits.ckpt", weights_only=True)
    content["hyper_parameters"]["input_range"] = [0.0, 16.0]
    torch.save(content, "digits.ckpt")
    convert = ["convert", "digits.ckpt", "m.onnx", "--profile", "image", "--input-range", "0"]
    assert smx_export([*convert, "255"]) == 2
    assert "expected the input range that the model knows" in capsys.readouterr().err
    assert smx_export([*convert, "16"]) == 0


# smx-lightning fit ---------------------------------------------------------------------------


def test_the_range_of_the_data_flows_into_checkpoint_and_file(cli_folder):
    arguments = ["--onnx.profile=image,robust", "--onnx.outputs=[probs,label]", *SHORT]
    assert smx_lightning(["fit", *arguments, ADAM]) == 0
    run = Path("lightning_logs/version_0")
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert tuple(content["hyper_parameters"]["input_range"]) == (0, 16)
    metadata = {e.key: e.value for e in onnx.load(run / "model.onnx").metadata_props}
    assert json.loads(metadata["input_range"]) == [0, 16]
    assert stored_profile(run / "model.onnx") == Profile(
        robust=True, image=True, outputs=("probs", "label")
    )
    model = SoftmaxRegression.load_from_checkpoint(run / "checkpoints" / "best.ckpt").cpu()
    u = profiled.pixels(shape=(8, 8))
    x = torch.from_numpy(profiled.in_range(u, 0, 16)).float()
    probs = OnnxClassifier(run / "model.onnx").predict_proba(u)
    np.testing.assert_allclose(probs, model(x).exp().detach(), rtol=1e-3, atol=1e-5)


def test_the_callback_is_configured_in_yaml(cli_folder):
    onnx_section = {
        "profile": "compact",
        "weights": "float16",
        "outputs": ["scores"],
        "max_accuracy_loss": 0.5,
        "max_nll_increase": 0.25,
    }
    Path("c.yaml").write_text(yaml.safe_dump({"onnx": onnx_section}))
    assert smx_lightning(["fit", "--config=c.yaml", *SHORT, ADAM]) == 0
    (path,) = cli_folder.glob("lightning_logs/version_0/model.onnx")
    assert stored_profile(path) == Profile(
        weights="float16", outputs=("scores",), max_accuracy_loss=0.5, max_nll_increase=0.25
    )


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--onnx.profile=tiny", "expected a profile out of"),
        ("--onnx.outputs=[logits]", "expected outputs out of"),
        ("--onnx.max_nll_increase=-1", "max_nll_increase must be a finite number of at least 0"),
    ],
)
def test_a_bad_profile_ends_fit_before_it_trains(option, words, cli_folder, capsys):
    assert smx_lightning(["fit", option, *SHORT]) == 2
    assert words in capsys.readouterr().err
    assert not Path("lightning_logs").exists()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("kind", "told"), [("Own", [0, 16]), whole(("Ignorant", None)), whole(("Taking", [0, 16]))]
)
def test_a_subclass_need_not_take_what_the_data_knows(kind, told, cli_folder, monkeypatch):
    Path(f"of_{kind.lower()}.py").write_text(PROBES)  # a module of its own: imports are kept
    monkeypatch.syspath_prepend(cli_folder)
    assert smx_lightning(["fit", f"--model=of_{kind.lower()}.{kind}", *SHORT]) == 0
    (file,) = cli_folder.glob("lightning_logs/version_0/model.onnx")
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(metadata["input_shape"]) == [8, 8]
    assert json.loads(metadata.get("input_range", "null")) == told
    checkpoint = str(file.parent / "checkpoints" / "best.ckpt")
    named = ["--model-class", f"of_{kind.lower()}:{kind}", "--profile", "image"]
    assert smx_export(["convert", checkpoint, "m.onnx", *named, "--input-range", "0", "16"]) == 0


# OnnxExport ----------------------------------------------------------------------------------


def test_the_callback_writes_what_export_writes(digits, quiet_trainer, tmp_path):
    callback = OnnxExport(str(tmp_path / "a.onnx"), "robust,compact", ["label", "scores"])
    model = SoftmaxRegression(64, 10, preprocessing="standardize", input_shape=(8, 8))
    quiet_trainer(max_epochs=2, callbacks=[callback]).fit(model, digits)
    profile = Profile.of("robust,compact", outputs=["label", "scores"])
    assert callback.profile == profile
    assert callback.export.report.rounding.rows == len(digits.splits.val)
    rows = digits.splits.val
    export_onnx(model, tmp_path / "b.onnx", profile=profile, data=(rows.x, rows.y))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_without_validation_rows_the_callback_cannot_judge_rounding(
    digits, quiet_trainer, tmp_path
):
    callback = OnnxExport(str(tmp_path / "m.onnx"), profile="compact")
    trainer = quiet_trainer(callbacks=[callback], limit_val_batches=0, num_sanity_val_steps=0)
    with pytest.raises(InputError, match="expected labelled data to judge what int8 weights cost"):
        trainer.fit(SoftmaxRegression(64, 10), digits)
    assert not list(tmp_path.iterdir())


def test_a_budget_that_is_exceeded_ends_fit(digits, quiet_trainer, tmp_path):
    callback = OnnxExport(str(tmp_path / "m.onnx"), profile="compact", max_nll_increase=0)
    model = SoftmaxRegression(64, 10, optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
    with pytest.raises(ParityError, match="after rounding"):
        quiet_trainer(callbacks=[callback]).fit(model, digits)
    assert not list(tmp_path.iterdir())
