"""Damaged and hostile files of every kind that is read, by a seed each: see test_fuzz.py."""

import gzip
import io
import json
import math
import random
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
import yaml
from files import ALL
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_export import export_onnx
from smx_export.artifact.files import sealed, weights_sha256
from smx_export.contract import SELFTEST
from smx_lightning import SoftmaxRegression

NUMBERS = [0, -1, 1, 2, 255, 2**31 - 1, 2**31, -(2**31), 10**9, 2**62, 2**63 - 1, -(2**63)]
TEXTS = ["", "a\nself-test  passed", "\x1b[2J\x9b", "\u202e", "x" * 5000, "=1+1", "../../up", "\0"]
VALUES = [
    *NUMBERS, 10**30, 0.5, -0.0, 1e308, 1e-320, math.nan, math.inf, -math.inf, True, None, "\ud800",
    *TEXTS, [], {}, [None], [[]] * 3, [-1, 2], [1e9, 1e9], {"a": 1}, {1: 2},
    {"class_path": "os.abort"},
    [0] * 1000, ["a", "a"], list("abc"), ["\ud800", "b", "c"],
]  # fmt: skip


def scrambled(draw, data):
    """The bytes with a few things done to them."""
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 5, 20])):
        at, size = draw.randrange(len(data) + 1), draw.choice([1, 1, 2, 4, 8, 64])
        match draw.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + size] = draw.randbytes(size)
            case 2:
                data[at : at + size] = draw.choice([b"\0", b"\xff", b"\x7f"]) * size
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = draw.randbytes(size)
            case 5:
                data[at:at] = data[at : at + 64 * size]
            case 6 if draw.random() < 0.2:
                del data[at:]
    return bytes(data)


def zipped(members, method=zipfile.ZIP_STORED):
    """An archive, whose checksums are right."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def members_of(data):
    """What is in an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_a_member_scrambled(draw, data):
    """An archive that is whole, and one of whose members is not."""
    members = members_of(data)
    name = draw.choice(list(members))
    members[name] = scrambled(draw, members[name])
    if draw.random() < 0.1:
        members[draw.choice(["x", "y", "x.npy", "data.pkl", "x_val.npy"])] = draw.randbytes(50)
    return zipped(members, draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


def npy(draw, shape=None, descr=None, data=None):
    """An array under a header that need not be its own."""
    start = io.BytesIO()
    sides = [*NUMBERS, 12, 4, 3, 10**12, 10**20]
    shape = tuple(draw.choice(sides) for _ in range(draw.randrange(5))) if shape is None else shape
    kinds = [
        "<f4",
        "<f8",
        ">f2",
        "|u1",
        "<i8",
        "<U3",
        "|V0",
        "<U0",
        "|S0",
        "|O",
        "<c8",
        "<M8[s]",
        "<f16",
    ]
    header = {
        "descr": descr or draw.choice(kinds),
        "fortran_order": draw.choice([False, False, True]),
        "shape": shape,
    }
    text = repr(header).encode() + b"\n"
    start.write(b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text)
    start.write(draw.randbytes(draw.choice([0, 48, 192])) if data is None else data)
    return start.getvalue()


def npz_file(draw, good):
    """An .npz file."""
    match draw.randrange(4):
        case 0:
            return scrambled(draw, good)
        case 1:
            return with_a_member_scrambled(draw, good)
        case 2:
            members = members_of(good)
            members[draw.choice(["x.npy", "y.npy", "x_test.npy"])] = npy(draw)
            return zipped(members)
    shape = draw.choice([(12, 4), (48,), (4, 12), (12, 2, 2), (0, 4), (12, 0), (10**12, 0), (12,)])
    x = npy(draw, shape, data=draw.randbytes(192))
    return zipped({"x.npy": x, "y.npy": npy(draw, (12,), data=draw.randbytes(96))})


def idx_file(draw, good):
    """One of the four IDX files, and whether it is zipped."""
    if draw.random() < 0.5:
        inner = scrambled(draw, good)
    else:
        sides = [
            draw.choice([0, 1, 2, 12, 2**16, 2**31, 2**32 - 1]) for _ in range(draw.randrange(8))
        ]
        count = draw.choice([len(sides), len(sides), 0, 1, 3, 70, 255])
        sizes = b"".join(side.to_bytes(4, "big") for side in sides)
        inner = bytes([0, 0, 8, count]) + sizes + draw.randbytes(draw.choice([0, 12, 48, 300]))
    match draw.randrange(3):
        case 0:
            return inner, ""
        case 1:
            return gzip.compress(inner, 1), ".gz"
    return scrambled(draw, gzip.compress(inner, 1)), ".gz"


def _places(value, path=()):
    """Where something can be put in another's place."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield (*path, key)
        if isinstance(part, (dict, list)):
            yield from _places(part, (*path, key))


def _put(draw, content, value):
    place = draw.choice(list(_places(content)))
    for key in place[:-1]:
        content = content[key]
    match draw.randrange(6):
        case 0:
            del content[place[-1]]
        case 1 if isinstance(content, dict):
            content[draw.choice([*TEXTS, 1, None, "num_classes"])] = content.pop(place[-1])
        case _:
            content[place[-1]] = value


def _tensor(draw):
    shape = draw.choice([(), (3,), (4,), (3, 4), (4, 3), (0,), (1, 3, 4), (300, 400)])
    value = draw.choice([0.0, 1.0, -1.0, math.nan, math.inf, 1e38, 1e-45])
    dtype = draw.choice([torch.float32, torch.float64, torch.float16])
    tensor = torch.full(shape, value, dtype=torch.float64).to(
        dtype
    )  # what it cannot hold, infinite
    return draw.choice(
        [tensor, tensor.to(torch.int64), tensor.bool(), torch.ones(1).expand(10**9, 64),
         torch.ones(1).expand(3, 4), tensor.to_sparse(), tensor.to("meta"), tensor.double() * 1j]
    )  # fmt: skip


def checkpoint_file(draw, good):
    """A checkpoint."""
    match draw.randrange(4):
        case 0:
            return scrambled(draw, good)
        case 1:
            return with_a_member_scrambled(draw, good)
    content = torch.load(io.BytesIO(good), weights_only=True)
    for _ in range(draw.choice([1, 1, 2, 4])):
        part = draw.choice(["hyper_parameters", "smx_lightning", "state_dict", ""])
        if not part:
            _put(draw, content, draw.choice(VALUES))
        elif isinstance(content.get(part), dict) and content[part]:
            value = (
                draw.choice(VALUES)
                if part != "state_dict"
                else draw.choice([_tensor(draw), 1, None])
            )
            _put(draw, content[part], value)
    saved = io.BytesIO()
    torch.save(content, saved)
    return saved.getvalue()


def _messages(message):
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield from _messages(part)


def _change(draw, proto):
    """One field of one message, wherever, becomes another."""
    message = draw.choice(list(_messages(proto)))
    field = draw.choice(list(message.DESCRIPTOR.fields))
    repeated = field.is_repeated
    if field.message_type is not None:
        value = getattr(message, field.name)
        if repeated and len(value):
            draw.choice([value.pop, lambda: value.append(draw.choice(list(value)))])()
        elif not repeated:
            draw.choice([lambda: message.ClearField(field.name), value.SetInParent])()
        return
    number = draw.choice(NUMBERS)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        new = draw.choice([0.0, math.nan, math.inf, -1e38, 1.0])
    elif field.type == field.TYPE_BYTES:
        new = draw.randbytes(draw.choice([0, 1, 48]))
    elif field.cpp_type == field.CPPTYPE_STRING:
        names = [
            "input",
            "probs",
            "log_probs",
            "Loop",
            "If",
            "ConstantOfShape",
            "Expand",
            "com.microsoft",
        ]
        new = draw.choice([*TEXTS, *names])
    elif field.cpp_type == field.CPPTYPE_ENUM:
        new = draw.choice([one.number for one in field.enum_type.values])
    else:
        bits = 31 if "32" in field.cpp_type.__class__.__name__ or field.cpp_type in (1, 3) else 63
        unsigned = field.cpp_type in (3, 4)
        new = min(max(number, 0 if unsigned else -(2**bits)), 2**bits - 1)
    if repeated:
        values = getattr(message, field.name)
        draw.choice([lambda: values.append(new), values.pop if len(values) else lambda: None])()
    else:
        setattr(message, field.name, new)


def _changed_metadata(draw, proto):
    entry = draw.choice(list(proto.metadata_props))
    try:
        value = json.loads(entry.value)
    except (ValueError, RecursionError):
        value = entry.value
    if isinstance(value, (dict, list)) and value:
        _put(draw, value, draw.choice(VALUES))
    else:
        value = draw.choice(VALUES)
    entry.value = draw.choice(
        [json.dumps(value, default=str), str(draw.choice(TEXTS[:3])), "[" * 5000]
    )


def resealed(proto):
    """The file with a seal and a hash of its weights that are right."""
    for entry in proto.metadata_props:
        if entry.key == SELFTEST:
            values = json.loads(entry.value)
            entry.value = json.dumps({**values, "weights_sha256": weights_sha256(proto)})
    return sealed(proto)


def onnx_file(draw, good):
    """An ONNX file; most bear a seal and a hash that are right."""
    if draw.random() < 0.3:
        return scrambled(draw, good)
    proto = onnx.load_from_string(good)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        draw.choice([_change, _change, _changed_metadata])(draw, proto)
    try:
        return resealed(proto)
    except Exception:  # what cannot be sealed is a damaged file as well
        return proto.SerializeToString()


def yaml_file(draw, good):
    """A configuration file."""
    match draw.randrange(4):
        case 0:
            return scrambled(draw, good.encode())
        case 1:
            depth = draw.choice([10, 40, 1000, 200_000])
            return (draw.choice(["[", "{a: ", "- ", "? ", "&a ["]) * depth).encode()
        case 2:
            levels = draw.choice([3, 6, 9, 30])
            lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
            lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
            return ("\n".join(lines) + f"\ntrainer: *a{levels - 1}\n").encode()
    content = yaml.safe_load(good)
    for _ in range(draw.choice([1, 1, 2, 4])):
        value = draw.choice([v for v in VALUES if v != {"class_path": "os.abort"}])
        _put(draw, content, value)
    return yaml.safe_dump(content, allow_unicode=draw.random() < 0.5).encode("utf-8", "replace")


def draw_of(kind, seed):
    """The random numbers of one file."""
    return random.Random(f"{kind} {seed}")


def rows_file(draw, good):
    """Rows for a prediction: an .npz or an .npy file."""
    if draw.random() < 0.5:
        return npz_file(draw, good)
    array = members_of(good)["x.npy"]
    return draw.choice([scrambled(draw, array), npy(draw), npy(draw, (12, 4))])


def shelf(folder: Path) -> None:
    """Good files of every kind, in a folder."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3
    np.savez(folder / "good.npz", x=x, y=y)
    model = SoftmaxRegression(4, 3, preprocessing="standardize", class_names=["a", "b", "c"])
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), 12))
    trainer.save_checkpoint(folder / "good.ckpt")
    export_onnx(model, folder / "good.onnx", profile=ALL)
    (folder / "good.yaml").write_text(CONFIG)


CONFIG = """\
seed_everything: 0
trainer:
  max_epochs: 3
  accelerator: cpu
  logger: {class_path: CSVLogger, init_args: {save_dir: .}}
model:
  class_path: smx_lightning.SoftmaxRegression
  init_args: {preprocessing: standardize, l2: 0.001, class_weight: balanced}
data:
  class_path: NpzDataModule
  init_args: {path: good.npz, batch_size: 4, class_names: [a, b, c]}
checkpoint: {monitor: val/nll, filename: best, save_last: true}
onnx: {path: m.onnx}
"""
