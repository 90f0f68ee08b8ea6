"""What files call things reaches terminals and spreadsheets as text, whatever it holds."""

import csv
import io
import json
import os
import shlex
import subprocess
import sys
import unicodedata

import numpy as np
import onnx
import pytest
import torch
from files import model_of
from idx_files import idx_folder
from sampled import sampled

import smx_export.__main__
import smx_lightning.cli
from smx_export import FileError, OnnxClassifier, export_onnx
from smx_export.artifact.files import sealed
from smx_export.artifact.sidecar import write_sidecar
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import IdxDataModule, NpzDataModule
from smx_lightning.errors.text import csv_text, printable
from smx_lightning.processes.predictions import predictions_csv

FORGED = "self-test  passed"
EVIL = [
    f"a\n{FORGED}",
    "b\r\x1b[2J\x1b]0;t\x07",
    "c\u202egnp\u2069\u061c\u200f",
    "d\x9b2J\x85\u2028e",
]
# The judge is Unicode's own table: no controls, surrogates, separators of lines, bidi controls.
BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MARKS = "\u200e\u200f\u061c"


def unsafe(text):
    """The characters of a text in one line that a terminal would obey in place of showing them."""
    return [
        c
        for c in text
        if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}
        or unicodedata.bidirectional(c) in BIDI
        or c in MARKS
    ]


def test_every_character_is_shown_or_escaped():
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert len(unsafe(everything)) > 2000
    shown = printable(everything)
    assert not unsafe(shown)
    shown.encode()
    assert printable("naïve 数 → \u0645\u06cc\u200c\u062e é 🙂 \xa0 C:\\new") == (
        "naïve 数 → \u0645\u06cc\u200c\u062e é 🙂 \xa0 C:\\new"
    )
    assert printable("\n\t\x1b\x9b\u202e\ud800") == r"\n\t\x1b\x9b\u202e\ud800"


# Commands ----------------------------------------------------------------------------------------


def rename(path, names, to):
    """A file whose names and texts are hostile, sealed anew."""
    proto = onnx.load(path)
    for entry in proto.metadata_props:
        if entry.key == "class_names":
            entry.value = json.dumps(names)
        if entry.key == "provenance":
            known = json.loads(entry.value)
            entry.value = json.dumps({**known, f"x\n{FORGED}": EVIL[1], "class": EVIL[0]})
    proto.producer_name = proto.producer_version = EVIL[1]
    for node in proto.graph.node:
        node.name = EVIL[0] + node.name
    to.write_bytes(sealed(proto))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory, checkpoint):
    shelf = tmp_path_factory.mktemp("names")
    export_onnx(model_of(k=4, class_names=["a", "b", "c", "d"]), shelf / "plain.onnx")
    rename(shelf / "plain.onnx", EVIL, shelf / "evil.onnx")
    proto = onnx.load(shelf / "evil.onnx")
    proto.graph.node[0].op_type = f"No\n{FORGED}\x1b[2J"  # what the checker and onnxruntime quote
    (shelf / "operator.onnx").write_bytes(sealed(proto))
    proto = onnx.load(shelf / "evil.onnx")
    proto.graph.output[0].name = f"out\n{FORGED}\x1b[2J"
    (shelf / "output.onnx").write_bytes(sealed(proto))
    proto = onnx.load(shelf / "evil.onnx")
    proto.graph.initializer[0].name = f"w\n{FORGED}\x1b[2J"
    (shelf / "weight.onnx").write_bytes(sealed(proto))
    np.savez(shelf / "rows.npz", x=np.zeros((3, 6)))
    np.savez(shelf / "strange.npz", **{f"a\n{FORGED}\x1b[2J": np.zeros(3)})
    digits = torch.load(checkpoint, weights_only=True)
    digits["hyper_parameters"]["class_names"] = [*EVIL, *"efghij"]
    digits["smx_lightning"]["settings"]["class_names"] = [*EVIL, *"efghij"]
    torch.save(digits, shelf / "evil.ckpt")
    digits["smx_lightning"]["class"] = f"evil.Class\n{FORGED}\x1b[2J"
    torch.save(digits, shelf / "class.ckpt")
    digits["state_dict"][f"more\n{FORGED}\x1b[2J"] = torch.zeros(1)
    torch.save(digits, shelf / "weights.ckpt")
    data = np.load(shelf / "rows.npz")["x"]
    np.savez(shelf / "named.npz", x=np.tile(data, (4, 1)), y=np.array(EVIL).repeat(3))
    return shelf


HOSTILE = [  # command, and its exit code
    ("inspect evil.onnx", 0), ("inspect operator.onnx", 2), ("inspect output.onnx", 2),
    ("inspect weight.onnx", 2), ("inspect --json evil.onnx", 0),
    ("selftest evil.onnx", 0), ("selftest operator.onnx", 2), ("selftest weight.onnx", 2),
    ("selftest output.onnx", 2), ("verify evil.onnx --targets onnxruntime", 0),
    ("verify output.onnx --targets onnxruntime", 2), ("predict evil.onnx rows.npz out.csv", 0),
    ("predict operator.onnx rows.npz out.csv", 2), ("predict evil.onnx strange.npz out.csv", 2),
    ("convert evil.ckpt out.onnx", 0), ("convert class.ckpt out.onnx", 2),
    ("verify plain.onnx --checkpoint evil.ckpt", 1), ("verify evil.onnx --checkpoint evil.ckpt", 1),
    ("convert 'a\n\x1b[2J.ckpt' out.onnx", 2), ("web evil.onnx 'out\n\x1b[2J'", None),
    ("sidecar evil.onnx", 0), ("sidecar output.onnx", 2), ("sidecar evil.onnx 'o\n\x1b[2J'", 0),
    ("web operator.onnx out", 2), ("inspect 'a\n\x1b[2J' 'b\n\x1b[2J'", SystemExit),
]  # fmt: skip


@pytest.fixture
def here(shelf, cli_folder):
    for file in shelf.iterdir():
        (cli_folder / file.name).symlink_to(file)
    return cli_folder


@pytest.mark.parametrize(("command", "code"), HOSTILE)
def test_what_a_file_calls_things_is_printed_as_text(command, code, here, capsys):
    if code is SystemExit:
        with pytest.raises(SystemExit):
            smx_export.__main__.main(shlex.split(command))
    else:
        found = smx_export.__main__.main(shlex.split(command))
        assert found in ({0, 2} if code is None else {code})  # web needs npm's package
    out, err = capsys.readouterr()
    for line in (out + err).removesuffix("\n").split("\n"):
        assert not unsafe(line), line
        assert not line.startswith(FORGED)
    if code != 0:
        assert code in (1, None, SystemExit) or err.count("\n") == 1


FIT = (
    "--trainer.max_epochs=1 --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--trainer.enable_model_summary=false"
)
TRAINING = [
    (f"fit {FIT} --data NpzDataModule --data.path named.npz --model.optimizer=Adam", 0),
    (f"test {FIT} --ckpt_path evil.ckpt", 2),
    (f"test {FIT} --ckpt_path class.ckpt", 2),
    (f"test {FIT} --ckpt_path weights.ckpt", 2),
    (f"fit {FIT} --ckpt_path 'a\n\x1b[2J'", 2),
    (f"predict {FIT} --ckpt_path evil.ckpt", 0),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("command", "code"), TRAINING)
def test_so_do_those_of_smx_lightning(command, code, here, capsys):
    assert smx_lightning.cli.main(shlex.split(command)) == code
    out, err = capsys.readouterr()
    for line in (out + err).removesuffix("\n").split("\n"):
        assert not unsafe(line), line
        assert not line.startswith(FORGED)
    assert code == 0 or err.count("\n") == 1


# Encodings ---------------------------------------------------------------------------------------

GOOD = {
    smx_export.__main__: [
        ("--help", 0), ("predict --help", 0), ("inspect plain.onnx", 0),
        ("inspect absent→.onnx", 2),
        ("selftest plain.onnx", 0), ("selftest --json plain.onnx", 0),
        ("verify plain.onnx --targets onnxruntime", 0),
        ("predict plain.onnx rows.npz out.csv", 0), ("predict plain.onnx rows.npz 'o→/p→.csv'", 2),
        ("convert evil.ckpt 'o→.onnx'", 0), ("verify plain.onnx --checkpoint evil.ckpt", 1),
        ("web absent→.onnx site", 2),
    ],
    smx_lightning.cli: [
        ("--help", 0), ("fit --help", 0), ("fit --print_config", 0),
        (f"fit {FIT} --onnx.path 'm→.onnx' --checkpoint.dirpath '→' --trainer.max_epochs 99", 0),
        (f"fit {FIT} --data NpzDataModule --data.path '→.npz'", 2),
        (f"test {FIT} --ckpt_path evil.ckpt", 2), (f"validate {FIT} --ckpt_path '→.ckpt'", 2),
        (f"predict {FIT} --ckpt_path evil.ckpt --predictions.path '→.csv'", 0),
    ],
}  # fmt: skip
CASES = [
    (cli, command, code, encoding)
    for cli, commands in GOOD.items()
    for command, code in commands
    for encoding in ("ascii", "cp1252")
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("cli", "command", "code", "encoding"), sampled(CASES, every=3))
def test_a_terminal_of_another_encoding_is_no_error(
    cli, command, code, encoding, here, monkeypatch
):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    try:
        found = cli.main(shlex.split(command))
    except SystemExit as ended:
        found = ended.code
    said = ""
    for stream in streams.values():
        stream.flush()
        said += stream.buffer.getvalue().decode(encoding)
    assert found == code, said
    assert said
    assert "codec" not in said


@pytest.mark.whole
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("command", ["smx_export inspect plain.onnx", "smx_lightning fit --help"])
def test_so_it_is_in_a_process_of_its_own(command, encoding, here):
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode(encoding)


# Names -------------------------------------------------------------------------------------------

LONE = "caf\udce9"


@pytest.mark.parametrize(
    "make",
    [
        lambda path: SoftmaxRegression(2, 2, class_names=["a", LONE]),
        lambda path: NpzDataModule(path).splits,
        lambda path: NpzDataModule(path, class_names=["a", LONE]).splits,
    ],
    ids=["module", "labels", "names"],
)
def test_half_a_surrogate_pair_is_refused_at_construction(make, tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, x=np.zeros((8, 2)), y=np.array(["a", LONE] * 4))
    with pytest.raises(InputError, match=r"UTF-8 can hold, got 'caf\\udce9' with a lone surrogate"):
        make(path)
    remedied = LONE.encode("utf-8", "replace").decode()
    assert SoftmaxRegression(2, 2, class_names=["a", remedied]).class_names == ("a", "caf?")


def test_so_it_is_in_idx_data(tmp_path):
    idx_folder(tmp_path, np.arange(10), np.arange(10))
    with pytest.raises(InputError, match="lone surrogate"):
        _ = IdxDataModule(tmp_path, [LONE, *"bcdefghij"]).splits


def test_so_it_is_in_the_metadata_of_a_file(shelf, tmp_path):
    rename(shelf / "plain.onnx", [LONE, "b", "c", "d"], tmp_path / "lone.onnx")
    with pytest.raises(FileError, match="lone surrogate"):
        OnnxClassifier(tmp_path / "lone.onnx")
    with pytest.raises(FileError, match="metadata that a JSON file can hold"):
        write_sidecar(tmp_path / "lone.onnx")


# Spreadsheets ------------------------------------------------------------------------------------

FORMULAS = [
    "=1+1",
    "+x",
    "-x",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "=cmd|'/c calc'!A0",
    "-1+1",
    "＝1",
    "'=1",
]
TEXTS = ["", "cat", "-1", "+1.5e3", "a=b", "3-4", "'quoted'", "p(=1)", "数"]


def own_reader(cell):
    """What the documentation tells a reader to do."""
    rest = cell.lstrip("'").lstrip()
    quoted = (cell.startswith("'") and rest[:1] in {*"=+-@＝＋－＠"}) or cell[1:2] in {"\t", "\r"}
    return cell[1:] if quoted else cell


@pytest.mark.parametrize("name", FORMULAS)
def test_what_would_be_a_formula_is_text(name):
    assert csv_text(name) == f"'{name}"
    assert own_reader(csv_text(name)) == name


@pytest.mark.parametrize("name", TEXTS)
def test_other_names_and_numbers_stay_as_they_are(name):
    assert csv_text(name) == name
    assert own_reader(name) == name


def test_predictions_hold_no_formula(tmp_path):
    names = [*FORMULAS, "-1", "cat"]
    with predictions_csv(tmp_path / "p.csv", names) as write:
        write([*range(len(names)), -1], [[-1.5] * len(names)] * (len(names) + 1))
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert [own_reader(row[1]) for row in rows] == [*names, ""]
    assert {cell for row in rows for cell in row[2:]} == {"-1.5"}
    cells = [*header, *(row[1] for row in rows)]
    assert [cell for cell in cells if cell[:1] in {*"=+-@\t\r＝＋－＠"}] == ["-1"]


def test_a_confusion_matrix_holds_no_formula(tmp_path, quiet_trainer):
    from smx_lightning.callbacks import ConfusionCsv
    from smx_lightning.data import BatchLoader, Rows

    model = SoftmaxRegression(3, 3, class_names=["=1+1", "-1", "b"])
    rows = Rows(torch.eye(3), torch.arange(3))
    quiet_trainer(callbacks=[ConfusionCsv(str(tmp_path / "c.csv"))]).test(
        model, BatchLoader(rows, batch_size=3), verbose=False
    )
    with (tmp_path / "c.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["label", "predicted =1+1", "predicted -1", "predicted b"]
    assert [row[0] for row in rows] == ["'=1+1", "-1", "b"]
