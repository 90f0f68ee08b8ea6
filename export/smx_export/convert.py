"""Module or checkpoint → one verified ONNX file."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

from torch import nn

from smx_export.artifact.files import sealed, weights_sha256
from smx_export.contract import SELFTEST
from smx_export.errors import ParityError
from smx_export.graph.arrays import Data
from smx_export.graph.composition import composed
from smx_export.graph.customary import sample_shape, taken
from smx_export.graph.detached import detached_copy, uncompiled
from smx_export.graph.inference_copy import check_activation, inference_copy, is_linear
from smx_export.graph.metadata import model_metadata
from smx_export.graph.portable import set_metadata
from smx_export.parity.comparison import Comparison
from smx_export.parity.determinism import ROWS, answering, refuse_nondeterministic
from smx_export.parity.inputs import ParityInputs
from smx_export.parity.reference import reference_of
from smx_export.parity.report import ParityReport
from smx_export.profile import PORTABLE, Profile
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.checkpoint.reading import Checkpoint, read_checkpoint
from smx_lightning.errors.naming import how_to_name
from smx_lightning.errors.streams import Doing, Say, on_stderr, said_meanwhile
from smx_lightning.errors.unreadable import reason
from smx_lightning.processes.files import at_home, written_whole
from smx_lightning.processes.turns import in_turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Export:
    """What :func:`export_onnx` did: the file, and the report that proves it."""

    path: Path
    report: ParityReport


@in_turn
def export_onnx(
    model_or_checkpoint: nn.Module | str | Path,
    path: str | Path,
    *,
    head: str | None = None,
    model_class: type[SoftmaxRegression] = SoftmaxRegression,
    init_args: Mapping[str, Any] | None = None,
    profile: Profile | str = PORTABLE,
    batch: int | None = None,
    top_k: int | None = None,
    input_shape: Sequence[int] | None = None,
    input_range: tuple[float, float] | None = None,
    data: Data | None = None,
    progress: Say | None = on_stderr,
) -> Export:
    """Write the model as one ONNX file that was checked against it.

    The file holds float32 log-probabilities and probabilities, in eval mode, with standardisation
    folded into the weights. It is moved to ``path`` only when every check has passed. Threads that
    export at once wait for each other.

    Args:
        model_or_checkpoint: A live module, compiled or not, or the path of its checkpoint.
        path: Where the file goes.
        head: Of somebody's own module the name of its part, see :func:`smx_export.composed`.
        model_class: The subclass that wrote the checkpoint; code is never loaded from it.
        init_args: Arguments of that class in place of the checkpoint's, such as a backbone.
        profile: See :class:`smx_export.profile.Profile`; a name (``"robust,image"``) will do.
        batch: The number of rows that the file takes, of the profile.
        top_k: How many of the most probable classes it names, likewise.
        input_shape: Shape of one input, where it differs from ``model.input_shape``.
        input_range: Smallest and largest entry, where the model does not know it, as of pixels.
        data: Inputs, or (inputs, labels), to compare on besides the generated ones; what
            rounded weights cost is measured on them, so profile ``compact`` needs labels.
        progress: Told every few seconds what is under way; ``None`` for silence.

    Raises:
        InputError: For a checkpoint that cannot be used, or a path that cannot be written.
        ParityError: Where the file is not the model; nothing is left under ``path``.
    """
    chosen = _sized(profile, batch, top_k)
    if isinstance(model_or_checkpoint, (str, os.PathLike)):
        _check_other_file(path, model_or_checkpoint)
        checkpoint = read_checkpoint(model_or_checkpoint)
        live, training = model_of(checkpoint, model_class, init_args), checkpoint.training
    else:
        live = _live(model_or_checkpoint, head, input_shape, data)
        training = live.training_summary()
    copied = detached_copy(live, input_shape, input_range)
    return export_copy(copied, path, training, data, chosen, progress)


def _sized(profile: Profile | str, batch: int | None, top_k: int | None) -> Profile:
    """A profile with what is given besides."""
    chosen = Profile.of(profile) if isinstance(profile, str) else profile
    return replace(
        chosen,
        batch=chosen.batch if batch is None else batch,
        top_k=chosen.top_k if top_k is None else top_k,
    )


def _check_other_file(path: str | Path, checkpoint: str | Path) -> None:
    """Complain about a checkpoint that the file would be written over."""
    # No loop of links stops realpath.
    if os.path.realpath(at_home(path)) == os.path.realpath(at_home(checkpoint)):
        raise InputError(
            f"expected another file than the checkpoint {checkpoint} to write to; choose another "
            "name"
        )


def _live(
    module: Any, head: str | None, input_shape: Sequence[int] | None, data: Data | None
) -> SoftmaxRegression:
    """The model that a live module is, or has as a part."""
    module = uncompiled(module)
    if head is not None and isinstance(module, nn.Module):
        return composed(module, head, input_shape, data)
    if isinstance(module, SoftmaxRegression):
        return module
    raise InputError(
        f"expected a SoftmaxRegression, or a module with one as a part, or the path of a "
        f"checkpoint, got {type(module).__name__}; name the part with head='…'"
    )


@in_turn
def export_copy(
    model: SoftmaxRegression,
    path: str | Path,
    training: dict[str, Any] | None,
    data: Data | None,
    profile: Profile,
    progress: Say | None = on_stderr,
) -> Export:
    """Export what :func:`detached_copy` made; ``training`` goes into the provenance."""
    doing = Doing("asking the model about a few rows")
    with said_meanwhile(progress, lambda: f"exporting {path}: {doing.words}"):
        inference = inference_copy(model, profile)
        # Before anything is written: data may not fit.
        comparison = Comparison(inference, data, doing)
        metadata = model_metadata(model, profile, training)
        graph = comparison.graph
        with answering(comparison.inputs.ordinary(1)):
            vectors = comparison.inputs.vectors
        metadata[SELFTEST] = vectors.to_json(weights_sha256(graph))
        set_metadata(graph, metadata)
        with written_whole(path) as draft:
            draft.write_bytes(sealed(graph))
            report = comparison.report(draft)
            if not report.passed:
                raise ParityError(report)
    return Export(at_home(path), report)


def to_onnx(
    model: SoftmaxRegression, file: str | Path | IO[bytes], sample: Any = None, **options: Any
) -> Path | None:
    """:func:`export_onnx` as ``LightningModule.to_onnx`` is called.

    Args:
        model: A live module.
        file: A path, or a stream to write to.
        sample: Inputs ``(batch, …)``, or a tuple of these alone; the shape of a row replaces
            ``input_shape``. By default ``example_input_array``, where the model has one.
        options: Of :func:`export_onnx`; and those of ``torch.onnx.export`` that ask for what it
            does: see :mod:`smx_export.graph.customary`.

    Returns:
        The path; ``None`` of a stream.

    Raises:
        InputError: For options that ask for something else; and as :func:`export_onnx`.
    """
    sample = getattr(model, "example_input_array", None) if sample is None else sample
    if sample is not None:
        options.setdefault("input_shape", sample_shape(sample, model))
    options = taken(options, model)
    if isinstance(file, (str, os.PathLike)):
        return export_onnx(model, Path(file), **options).path
    if not hasattr(file, "write"):
        raise InputError(
            f"expected a path, or a stream to write to, got {type(file).__name__}; give a path"
        )
    with TemporaryDirectory() as folder:
        file.write(export_onnx(model, Path(folder, "model.onnx"), **options).path.read_bytes())
    return None


@in_turn
def refuse_untrained(live: SoftmaxRegression, profile: Profile) -> None:
    """Complain, before it is trained, about a model that no file of a profile can be.

    Raises:
        InputError: Where :mod:`smx_export.parity.determinism` or the profile refuses it whatever
            its weights.
    """
    check_activation(live)
    if is_linear(live):
        return
    try:
        inference = inference_copy(detached_copy(live), profile)
        reference = reference_of(inference.model)
        rows = ParityInputs(inference, reference).ordinary(ROWS)
        refuse_nondeterministic(inference.model, reference, rows, trained=False)
    except InputError:
        raise
    except Exception:  # it cannot answer yet, as its parts are made later: the export asks again
        return


def model_of(
    checkpoint: Checkpoint,
    model_class: type[SoftmaxRegression] = SoftmaxRegression,
    init_args: Mapping[str, Any] | None = None,
) -> SoftmaxRegression:
    """The model that wrote a checkpoint.

    Raises:
        InputError: Where another class wrote it, or its content does not fit the class.
    """
    expected = f"{model_class.__module__}.{model_class.__qualname__}"
    if (
        checkpoint.model_class.rpartition(".")[2] != model_class.__name__
    ):  # its module may have been __main__ in training
        raise InputError(
            f"expected a checkpoint of {expected}, got one of {checkpoint.model_class} in "
            f"{checkpoint.path}; {how_to_name(checkpoint.model_class, '--model-class')} (in "
            "Python: model_class=…)"
        )
    try:
        return model_class.load_from_checkpoint(
            checkpoint.path, map_location="cpu", **(init_args or {})
        )
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        raise InputError(
            f"expected a checkpoint that fits {expected}, got: {reason(error)}; was the class "
            "changed since it was saved?"
        ) from error
