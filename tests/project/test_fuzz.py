"""Damaged and hostile files of every kind end in a sentence, in 2 s of computing and 1 GB.

tests/support/fuzzing.py tries as many as one likes; each has a seed.
"""

import pytest
from fenced import Fence
from fuzzing import COMMANDS, ORDER, Fuzz
from sampled import whole

FEW, MANY = 30, 1500


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory):
    with Fence() as fence:
        yield Fuzz(tmp_path_factory.mktemp("fuzz"), fence)


@pytest.mark.parametrize("seeds", [range(FEW), whole(range(FEW, MANY))], ids=["few", "many"])
def test_every_file_ends_in_a_sentence(seeds, fuzz):
    codes = set()
    for seed in seeds:
        kind = ORDER[seed % len(ORDER)]
        ended, wrong = fuzz.ended(kind, seed)
        assert not wrong, f"{kind} {seed}: {fuzz.file(kind, seed)}: {wrong}"
        codes.add((kind, ended.code))
    assert {kind for kind, _ in codes} == set(COMMANDS)
    assert {0, 2} <= {code for _, code in codes}


@pytest.mark.parametrize("short", [True, False])
def test_good_files_pass(short, fuzz):
    for reader in ("smx-export selftest good.onnx", "smx-export inspect good.onnx", "npz good.npz"):
        ended = fuzz.fence.run(*reader.split(), cwd=fuzz.folder, short=short)
        assert ended.code == 0, (reader, ended)


@pytest.mark.parametrize("seeds", [range(40, 60, 4), whole(range(60, 120))], ids=["few", "many"])
def test_what_a_command_is_spared_changes_nothing(seeds, fuzz):
    for seed in seeds:
        kind = ORDER[seed % len(ORDER)]
        spared, usual = (in_time(fuzz, kind, seed, short) for short in (True, False))
        assert spared[:3] == usual[:3], f"{kind} {seed}"


def in_time(fuzz, kind, seed, short, tries=4):
    """How a command ended; once more where a second was too little, as on a busy machine."""
    ended = fuzz.ended(kind, seed, short)[0]
    late = "took more than" in f"{ended[1]}{ended[2]}"
    return in_time(fuzz, kind, seed, short, tries - 1) if late and tries > 1 else ended
