"""Every reader on damaged and hostile files: ``python tests/support/fuzzing.py COUNT [FIRST]``.

Each file is read by a command in a fork with limits, see fenced.py. Most commands are shortened as
warm.py says, which spares what no file has a say in; one in ``WHOLE`` is run as a user runs it, and
starts the processes with limits that users start.
"""

import shlex
import shutil
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from itertools import dropwhile
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
WHOLE = 50
LONGEST = 3000  # characters of a sentence: some names in a file are of 5000
GOOD = {"rows": "npz", "checkpoint": "ckpt", "idx": "idx"}
SHARES = {"onnx": 5, "checkpoint": 4, "npz": 4, "rows": 2, "idx": 3, "yaml": 2}  # of 20 files
ORDER = [kind for kind, share in SHARES.items() for _ in range(share)]


class Fuzz:
    """A folder of good files, in which others are tried."""

    def __init__(self, folder, fence):
        self.folder, self.fence = Path(folder), fence
        hostile.shelf(self.folder)
        self.good = {path.name for path in self.folder.iterdir()}

    def file(self, kind, seed):
        """Write the file of a seed; the command that reads it."""
        draw = hostile.draw_of(kind, seed)
        commands = COMMANDS[kind]
        command = draw.choice([commands[0], draw.choice(commands)])
        for path in self.folder.iterdir():  # what another command has left
            if path.name not in self.good:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kind == "idx":
            part = draw.choice(["train", "t10k"]), draw.choice(["images-idx3", "labels-idx1"])
            stem = self.folder / "{}-{}-ubyte".format(*part)
            content, ending = hostile.idx_file(draw, self.idx[stem.name])
            for name, good in self.idx.items():
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

    def ended(self, kind, seed, short=None):
        """How reading the file of a seed has ended, and what is wrong with that."""
        reader, *arguments = shlex.split(self.file(kind, seed))
        if short is None:
            short = hostile.draw_of("short", seed).randrange(WHOLE) > 0
        ended = self.fence.run(reader, *arguments, cwd=self.folder, short=short)
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
    if ended.code == 2 and (wrong := no_sentence(ended.err)):
        return wrong
    if (
        ended.code == 1
        and "FAIL" not in ended.out + ended.err
        and "is not the model" not in ended.err
    ):
        return f"1 and no word of it: {ended.out!r} {ended.err!r}"
    return ""


def no_sentence(err):
    """Why what was said on stderr is no single sentence; after a usage, it follows ``error:``."""
    lines = err.splitlines()
    if err.startswith("usage: "):
        lines = list(dropwhile(lambda line: "error: " not in line, lines))
    if len(lines) != 1:
        return f"no single sentence: {err!r}"
    return "" if len(lines[0]) <= LONGEST else f"a sentence of {len(lines[0])} characters"


def main(count, first=0):
    """Try so many files; say how they ended, how long that took, and which should not have."""
    codes, seconds, late, faults, began = Counter(), Counter(), 0, [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Fence() as fence:
        fuzz = Fuzz(folder, fence)
        for seed in range(first, first + count):
            kind, start = ORDER[seed % len(ORDER)], time.monotonic()
            ended, wrong = fuzz.ended(kind, seed)
            codes[kind, ended.code] += 1
            seconds[kind] += time.monotonic() - start
            late += "s that it may" in ended.out + ended.err
            if wrong:
                faults.append((kind, seed))
                print(f"--- {kind} {seed}: {fuzz.file(kind, seed)}\n{wrong}", flush=True)
            if seed % 500 == 499 or seed + 1 == first + count:
                spent = time.monotonic() - began
                print(f"{seed + 1 - first} files, {spent:.0f} s, ended late: {late}")
                print(table(codes, seconds), flush=True)
    print(f"{len(faults)} faults: {faults}")


def table(codes, seconds):
    """A line for each kind of files."""
    ends = {
        of: {code: n for (kind, code), n in sorted(codes.items()) if kind == of} for of in SHARES
    }
    return "\n".join(
        f"  {kind:12} {sum(of.values()):5} files, {seconds[kind]:7.1f} s, ended in {of}"
        for kind, of in ends.items()
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
