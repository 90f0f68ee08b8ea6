"""Is a checkpoint what was saved? Its archive's checksums, and hashes of the model in it.

torch's reader passes over the checksums of its archives, so one flipped bit makes another model
without a word. Files in torch's older format, and archives saved with
``torch.serialization.set_crc32_options(False)``, have none: there the hashes alone tell.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import IO, Any

import torch
from torch import Tensor

from smx_lightning.checkpoint.plain import NotPlainError, plain, plain_ones, without_numpy
from smx_lightning.errors import InputError
from smx_lightning.errors.sizes import check_inflation, check_room

HASHES = "smx_lightning_sha256"  # in checkpoints, JSON: of each of the "weights", and of "settings"
WEIGHTS, SETTINGS = "weights", "settings"
NOTES, ARGUMENTS = "smx_lightning", "hyper_parameters"  # what the settings are
MAGIC = b"PK\x03\x04"  # by which torch knows an archive
CHUNK = 2**22  # bytes, and entries of tensors, at a time
DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, OverflowError)


def check_archive(file: IO[bytes], where: str, *, whole: bool = True) -> bool:
    """Hold what is in an open file against the archive's checksums, from where the file stands.

    Args:
        file: It is left where it was.
        where: Its name.
        whole: Whether to test the tensors too, and not only what says which there are.

    Returns:
        Whether the archive has checksums that hold; ``False`` of a file of torch's older format.

    Raises:
        InputError: Where the file was damaged.
    """
    began = file.tell()
    try:
        if began or not is_archive(file):
            return False
        return _checksums_hold(file, where, whole=whole)
    finally:
        file.seek(began)


def is_archive(file: IO[bytes]) -> bool:
    """Whether torch takes an open file, from where it stands, for an archive."""
    return file.read(len(MAGIC)) == MAGIC


def _checksums_hold(file: IO[bytes], where: str, *, whole: bool) -> bool:
    """The same of an archive."""
    try:
        archive = zipfile.ZipFile(file)
        size = file.seek(0, 2)
    except DAMAGED as error:
        raise InputError(
            f"expected a Lightning checkpoint at {where}, got a file that torch cannot read; it "
            "may be truncated or of another kind"
        ) from error
    entries = archive.infolist()
    inflated = sum(entry.file_size for entry in entries)
    check_inflation(inflated, size, f"a checkpoint at {where}")
    if whole:
        check_room(inflated, f"a checkpoint at {where}")
    if not any(entry.CRC for entry in entries):  # saved without
        return False
    for entry in entries:
        if not whole and "/data/" in entry.filename:
            continue
        try:
            _read(archive, entry)
        except (*DAMAGED, OSError) as error:
            raise InputError(
                f"expected a checkpoint as it was saved at {where}, got one that was damaged "
                f"since, in {entry.filename!r}; take another copy, or an earlier checkpoint"
            ) from error
    return True


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Read an entry to its end, where zipfile compares the checksum."""
    stored = entry.compress_type == zipfile.ZIP_STORED
    if (stored and entry.compress_size != entry.file_size) or (entry.CRC and not entry.file_size):
        raise zipfile.BadZipFile("an entry of another size")  # zipfile would compare nothing
    with archive.open(entry) as part:
        while part.read(CHUNK):
            pass


def with_hashes(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of this project as it is about to be written, with hashes of its model.

    Another's is left as it is. Numpy's numbers, in the state of an optimiser or a callback, become
    Python's: torch's restricted reader has no others.
    """
    kept = {name: entry for name, entry in checkpoint.items() if name != HASHES}
    if NOTES not in kept:
        return kept
    kept = {name: without_numpy(entry) for name, entry in kept.items()}
    return {**kept, HASHES: json.dumps(_hashes(kept))}


def check_hashes(content: Mapping[str, Any], where: str, *, sound: bool) -> None:
    """Complain where a checkpoint's model is not the one that was saved.

    Args:
        content: The checkpoint.
        where: Its name.
        sound: Whether checksums of the archive speak for the rest. Then only weights are looked
            at that are the saved ones by their names: what somebody has added, left out or set
            differently in a file that was written whole is theirs.
    """
    if HASHES not in content:
        return
    found, noted = _hashes(content), _noted(content[HASHES])
    saved, here = noted[WEIGHTS], found[WEIGHTS]
    changed = [name for name in here if saved.get(name, here[name]) != here[name]]
    if not sound:
        changed += [] if saved.keys() == here.keys() else ["state_dict"]
        changed += [] if noted[SETTINGS] == found[SETTINGS] else ["settings"]
    if changed:
        raise InputError(
            f"expected {changed[0]} as it was saved in {where}, got another, by the SHA-256 that "
            "was noted; take another copy or an earlier checkpoint, or, if you have changed it "
            f"yourself, save the checkpoint without its {HASHES!r}"
        )


def _noted(text: Any) -> dict[str, Any]:
    """What :func:`with_hashes` has noted; hashes of nothing where that was damaged."""
    try:
        noted = json.loads(text)
        return {WEIGHTS: dict(noted[WEIGHTS]), SETTINGS: noted[SETTINGS]}
    except (TypeError, ValueError, KeyError, RecursionError):
        return {WEIGHTS: {}, SETTINGS: None}


def _hashes(content: Mapping[str, Any]) -> dict[str, Any]:
    """Of each tensor among the weights that is at hand, and of all that is plain."""
    weights, arguments = content.get("state_dict", {}), content.get(ARGUMENTS)
    kept, _ = plain_ones(arguments) if isinstance(arguments, Mapping) else ({}, {})
    others = {str(name): _in_words(v) for name, v in weights.items() if not isinstance(v, Tensor)}
    told = f"{kept!r} {_in_words(content.get(NOTES))} {others!r}"
    tensors: dict[str, str] = {}
    for name, value in weights.items():
        with suppress(RuntimeError):  # of a kind that is not to be had as bytes: it stays unhashed
            tensors |= {str(name): _hash_of(value.detach())} if _is_at_hand(value) else {}
    return {
        WEIGHTS: tensors,
        SETTINGS: sha256(told.encode()).hexdigest(),
    }


def _in_words(value: Any) -> str:
    """A plain value as Python would write it, and of any other its type."""
    try:
        return repr(plain(value))
    except NotPlainError:
        return f"of type {type(value).__name__}"


def _is_at_hand(value: Any) -> bool:
    """Whether it is a tensor with numbers that are all in this process: no shard, for one."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    return dense and not value.is_meta and type(value) in (Tensor, torch.nn.Parameter)


def _hash_of(tensor: Tensor) -> str:
    """Of dtype, shape and numbers."""
    digest = sha256(f"{tensor.dtype} {[*tensor.shape]}\n".encode())
    for part in _parts(tensor):
        numbers: Any = part.cpu().view(torch.uint8).numpy()
        digest.update(numbers)
    return digest.hexdigest()


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """The numbers of a tensor, flat, a part at a time.

    None of one that a hostile file says to be larger than it is.
    """
    for axis, stride in enumerate(tensor.stride()):  # of repeated numbers the first: the shape
        tensor = tensor.narrow(axis, 0, min(tensor.shape[axis], 1)) if stride == 0 else tensor
    if tensor.nbytes <= tensor.untyped_storage().nbytes():
        flat = tensor.resolve_conj().resolve_neg().reshape(-1).contiguous()
        yield from torch.split(flat.as_strided(flat.shape, (1,)), CHUNK)  # a single one too
