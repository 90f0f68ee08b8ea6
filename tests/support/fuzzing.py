"""Every reader on damaged and hostile files: ``python tests/support/fuzzing.py COUNT [FIRST]``."""

import shlex
import sys
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import hostile
from fenced import SECONDS, Fence

CALM = "--trainer.accelerator=cpu --trainer.enable_progress_bar=false --trainer.logger=false"
ROWS = "--data=NpzDataModule --data.path=good.npz"
QUICK = "--max-seconds 1"
COMMANDS = {  # of each kind of file; the first is what most files go through
    "onnx": [
        f"smx-export selftest FILE {QUICK}",
        "smx-export inspect FILE",
        f"smx-export predict FILE good.npz out.csv {QUICK}",
        f"smx-export verify FILE --checkpoint good.ckpt {QUICK}",
        "sidecar FILE",
    ],
    "checkpoint": [
        "smx-export convert FILE out.onnx",
        f"smx-export verify good.onnx --checkpoint FILE {QUICK}",
        f"smx-lightning predict --ckpt_path FILE {ROWS} {CALM}",
        f"smx-lightning test --ckpt_path FILE {ROWS} {CALM}",
    ],
    "npz": [
        "npz FILE",
        "rows FILE",
        f"smx-export verify good.onnx --checkpoint good.ckpt --data FILE {QUICK}",
        f"smx-lightning predict --ckpt_path good.ckpt --data=NpzDataModule --data.path=FILE {CALM}",
    ],
    "rows": [f"smx-export predict good.onnx FILE out.csv {QUICK}"],
    "idx": ["idx ."],
    "yaml": ["smx-lightning fit --config FILE --print_config", "hparams good.ckpt FILE"],
}
GOOD = {"rows": "npz", "checkpoint": "ckpt", "idx": "idx"}
SHARES = {"onnx": 5, "checkpoint": 4, "npz": 4, "rows": 2, "idx": 3, "yaml": 2}  # of 20 files
ORDER = [kind for kind, share in SHARES.items() for _ in range(share)]


class Fuzz:
    """A folder of good files, in which others are tried."""

    def __init__(self, folder, fence):
        self.folder, self.fence = Path(folder), fence
        hostile.shelf(self.folder)

    def file(self, kind, seed):
        """Write the file of a seed; the command that reads it."""
        draw = hostile.draw_of(kind, seed)
        commands = COMMANDS[kind]
        command = draw.choice([commands[0], draw.choice(commands)])
        if kind == "idx":
            part = draw.choice(["train", "t10k"]), draw.choice(["images-idx3", "labels-idx1"])
            stem = self.folder / "{}-{}-ubyte".format(*part)
            content, ending = hostile.idx_file(draw, self.idx[stem.name])
            for name, good in self.idx.items():
                (self.folder / name).unlink(missing_ok=True)
                (self.folder / f"{name}.gz").unlink(missing_ok=True)
                (self.folder / name).write_bytes(good)
            stem.unlink()
            Path(f"{stem}{ending}").write_bytes(content)
            return command
        good = self.folder / f"good.{GOOD.get(kind, kind)}"
        content = good.read_text() if kind == "yaml" else good.read_bytes()
        (self.folder / "file").write_bytes(getattr(hostile, f"{kind}_file")(draw, content))
        return command.replace("FILE", "file")

    @property
    def idx(self):
        """The four good files."""
        images = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (12, 2, 2))
        labels = bytes([0, 0, 8, 1]) + (12).to_bytes(4, "big") + bytes([0, 1, 2] * 4)
        return {
            f"{part}-{name}-ubyte": content
            for part in ("train", "t10k")
            for name, content in (("images-idx3", images + bytes(48)), ("labels-idx1", labels))
        }

    def ended(self, kind, seed):
        """How reading the file of a seed has ended, and what is wrong with that."""
        reader, *arguments = shlex.split(self.file(kind, seed))
        ended = self.fence.run(reader, *arguments, cwd=self.folder)
        return ended, fault(reader, ended)


def fault(reader, ended):
    """What is wrong with how a command has ended; empty where nothing is."""
    if ended.code not in (0, 1, 2):
        return f"code {ended.code}: {ended.err[-1500:]}"
    if ended.cpu > SECONDS:
        return f"{ended.cpu:.1f} s"
    if "Traceback" in ended.err:
        return ended.err[-1500:]
    strange = {c for c in ended.out + ended.err if unicodedata.category(c) == "Cc"} - {"\n"}
    if strange:
        return f"printed {strange!r}"
    lines = ended.err.splitlines()
    if ended.code == 2 and len(lines) != 1 and not lines[0].startswith("usage: "):
        return f"no single sentence: {ended.err!r}"
    if ended.code == 2 and len(lines) == 1 and len(lines[0]) > 3000:
        return f"a sentence of {len(lines[0])} characters"
    if (
        ended.code == 1
        and "FAIL" not in ended.out + ended.err
        and "is not the model" not in ended.err
    ):
        return f"1 and no word of it: {ended.out!r} {ended.err!r}"
    return ""


def main(count, first=0):
    """Try so many files; say how they ended, and which should not have."""
    codes, faults = Counter(), []
    with tempfile.TemporaryDirectory() as folder, Fence() as fence:
        fuzz = Fuzz(folder, fence)
        for seed in range(first, first + count):
            kind = ORDER[seed % len(ORDER)]
            ended, wrong = fuzz.ended(kind, seed)
            codes[kind, ended.code] += 1
            if wrong:
                faults.append((kind, seed))
                print(f"--- {kind} {seed}: {fuzz.file(kind, seed)}\n{wrong}", flush=True)
            if seed % 500 == 499:
                print(seed + 1, dict(sorted(codes.items())), flush=True)
    print(f"{count} files, {len(faults)} faults: {faults}")
    print(dict(sorted(codes.items())))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
