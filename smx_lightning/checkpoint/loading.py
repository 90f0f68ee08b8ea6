"""A model from a checkpoint: the class is the caller's, the arguments are plain values."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import torch
import yaml
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden

from smx_lightning.checkpoint.bounded_yaml import load_yaml
from smx_lightning.checkpoint.content import load_plain
from smx_lightning.checkpoint.describing import DATA, LIVE, RUN, settings_of
from smx_lightning.checkpoint.injected import restored
from smx_lightning.checkpoint.matching import by_names_of, has_features
from smx_lightning.checkpoint.plain import annotations_of, is_recipe, plain_ones, wants_object
from smx_lightning.checkpoint.reading import (
    CHECKPOINT_KEY,
    HYPER_PARAMETERS,
    notes,
    plain_hyper_parameters,
)
from smx_lightning.data.described import hash_of
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_threshold, non_negative, whole
from smx_lightning.errors.class_weight import class_weights
from smx_lightning.errors.targets import check_smoothing
from smx_lightning.errors.text import printable
from smx_lightning.errors.unreadable import reason

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

Model = TypeVar("Model", bound="SoftmaxRegression")


def load_model(
    kind: type[Model],
    /,  # subclasses may have an argument of this name
    checkpoint_path: str | Path | IO[bytes],
    map_location: Any = None,
    hparams_file: str | Path | None = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    allow: Sequence[type] | type = (),
    **kwargs: Any,
) -> Model:
    """The model of a checkpoint, which is read as plain data: nothing in it is executed.

    Its optimiser and schedule come back where they are torch's own, the exact solver, or among
    ``allow``; with others the model predicts and exports, and asks for them once it is trained.

    Args:
        kind: The class.
        checkpoint_path: The checkpoint: a path, a URL or an open file.
        map_location: Where the weights go, as torch.load's; where they were by default.
        hparams_file: Plain YAML with the arguments, in place of the checkpoint's.
        strict: Whether all weights must fit; as the class says by default.
        weights_only: ``True``, whatever is given; ``False`` is refused.
        allow: Classes, or one, of optimisers and schedules of your own that the checkpoint
            may name.
        **kwargs: Arguments of the class that count in place of the checkpoint's.

    Raises:
        InputError: For a file that is no such checkpoint, or arguments that do not fit it.
    """
    if weights_only is False:
        raise InputError(
            "expected to read a checkpoint as plain data, got weights_only=False, which would "
            "run code from it; leave it out"
        )
    content = load_plain(checkpoint_path, map_location or _where_it_was)
    saved, left_out = plain_hyper_parameters(content)
    if hparams_file is not None:
        saved, others = _hparams_of(hparams_file)
        left_out = {n: what for n, what in {**left_out, **others}.items() if n not in saved}
    _warn_of_another_class(kind, content)
    arguments = arguments_for(kind, saved, left_out, kwargs, allow)
    check_sizes(kind, arguments, content["state_dict"], kwargs)
    model = constructed(kind, arguments, kwargs)
    counting = {*kwargs, *(saved if hparams_file is not None else ())}
    adopt(model, notes(content).get("settings") or {}, counting)
    _load(model, content, _renamed(content, saved, kwargs), strict)
    tensors = (v for v in content["state_dict"].values() if isinstance(v, torch.Tensor))
    return model.to(next(tensors, torch.tensor(0)).device)


def load_weights(model: SoftmaxRegression, path: str | Path) -> None:
    """Load a checkpoint's weights into a model that its arguments have made.

    Raises:
        InputError: For a file that is no such checkpoint, or one of another problem.
    """
    content = load_plain(path)
    _load(model, content, content, None)


def _load(
    model: SoftmaxRegression, content: dict[str, Any], seen: dict[str, Any], strict: bool | None
) -> None:
    """Load a checkpoint's weights into a model of its settings.

    Args:
        model: As its arguments made it.
        content: The checkpoint.
        seen: The same for the hooks.
        strict: As of :func:`load_model`.
    """
    if model._strict_loading is not None and strict not in (None, model.strict_loading):
        raise InputError(
            f"expected strict={model.strict_loading}, as {type(model).__name__} sets it, got "
            f"strict={strict}; leave it out"
        )
    if is_overridden("configure_model", model):
        model.configure_model()
    model.on_load_checkpoint(seen)
    _check_input_shape(model)
    keys = model.load_state_dict(
        by_names_of(model, content["state_dict"]),
        strict=model.strict_loading if strict is None else strict,
    )
    for what, names in (("lacks", keys.missing_keys), ("has besides", keys.unexpected_keys)):
        if names:
            rank_zero_warn(printable(f"The checkpoint {what} {', '.join(names)}"))
    model._smx_record.began_with = hash_of(model.state_dict())


def check_sizes(
    kind: type[SoftmaxRegression],
    arguments: Mapping[str, Any],
    weights: Mapping[str, Any],
    given: Collection[str],
) -> None:
    """Complain about a model larger than its weights, before there is any memory taken for it.

    Args:
        kind: Its class; what one with arguments of its own means by them is not known.
        arguments: A checkpoint's, and those given.
        weights: The checkpoint's.
        given: Names of arguments that are not the checkpoint's.

    Raises:
        InputError: Then.
    """
    weight = weights.get("smx.0.weight")
    if kind.__init__ is not kind._smx_hooks.kind.__init__ or weight is None or weight.ndim != 2:
        return
    for name, size in zip(("num_classes", "num_features"), weight.shape, strict=True):
        value = arguments.get(name)
        if name not in given and isinstance(value, int) and value > size:
            raise InputError(
                f"expected a checkpoint whose {name} is that of its weights, {size}, got {value}; "
                "it was changed since it was saved, take an unchanged one"
            )


def constructed(kind: type[Model], arguments: dict[str, Any], given: Mapping[str, Any]) -> Model:
    """A model of a checkpoint's arguments.

    Args:
        kind: The class.
        arguments: The checkpoint's, and those given.
        given: The latter.

    Raises:
        InputError: Where the class does not take them.
    """
    while True:
        try:
            return kind(**arguments)
        except InputError:
            raise
        except (ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
            raise InputError(
                f"expected a checkpoint whose arguments fit {kind.__name__}, got: {reason(error)}; "
                "take one that was not changed since it was saved, or give other arguments by name"
            ) from error
        except TypeError as error:
            # A class with **kwargs sets some of its parents' arguments itself; the file has them.
            twice = re.search(r"multiple values for (?:keyword )?argument '(\w+)'", str(error))
            if twice and twice[1] in arguments and twice[1] not in given:
                del arguments[twice[1]]
                continue
            ours = re.search(r"(?:values for|unexpected) (?:keyword )?argument '(\w+)'", str(error))
            remedy = "give those that it lacks to load_from_checkpoint by name"
            if ours and ours[1] in given:
                remedy = f"leave {ours[1]} out, which is no argument to be given"
            raise InputError(
                f"expected a checkpoint whose arguments fit {kind.__name__}, got: {error}; {remedy}"
            ) from error


def _check_input_shape(model: SoftmaxRegression) -> None:
    """Complain about inputs that a model of its own unrolled pixels cannot have."""
    if has_features(model) or isinstance(model.input_shape, Mapping):
        return
    if math.prod(model.input_shape) != model.num_features:
        raise InputError(
            f"expected an input_shape of {model.num_features} entries, as num_features says, got "
            f"{list(model.input_shape)} in the checkpoint; give another one with "
            "load_from_checkpoint(…, input_shape=…)"
        )


def _renamed(
    content: dict[str, Any], saved: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The checkpoint for the hooks: plain, and with the names that the caller gives."""
    seen = {**content, HYPER_PARAMETERS: {**saved, **given}}
    written = notes(content)
    renamed = {name: given[name] for name in ("class_names", "feature_names") if name in given}
    if "schema" in given:
        renamed["feature_names"] = None  # nobody's: those of the schema count
    if renamed and isinstance(written.get("settings"), dict):
        seen[CHECKPOINT_KEY] = {**written, "settings": {**written["settings"], **renamed}}
    return seen


def arguments_for(
    kind: type[SoftmaxRegression],
    saved: Mapping[str, Any],
    left_out: Mapping[str, str],
    given: Mapping[str, Any],
    allow: Sequence[type] | type = (),
) -> dict[str, Any]:
    """The arguments to construct a class with: those given, and a checkpoint's plain ones.

    Args:
        kind: The class.
        saved: Plain hyper-parameters.
        left_out: Those that are not plain, with what they are.
        given: What the caller says, which counts.
        allow: As of :func:`smx_lightning.checkpoint.injected.restored`.

    Raises:
        InputError: For an argument that no plain value can stand for, and that was not given.
    """
    parameters = inspect.signature(kind.__init__).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = (set(saved) | set(left_out) | set(RUN)) - {"self", DATA}
    names = {n for n in names if takes_any or n in parameters} - set(given)
    annotations = annotations_of(kind.__init__)
    arguments = dict(given)
    for name in sorted(names):
        if name in RUN:
            arguments[name] = restored(name, saved.get(name), allow)
            continue
        value = saved.get(name)
        what = left_out.get(name) or ("a class to be made" if is_recipe(value) else None)
        if what is None and value is not None and wants_object(annotations.get(name, Any)):
            what = f"{value!r}, where an object is wanted"
        if what is not None:
            raise InputError(
                f"expected plain hyper-parameters in the checkpoint, got {name}: {what}, and "
                f"nothing is made from a file; give {name} yourself, with "
                f"load_from_checkpoint(…, {name}=…), export_onnx(…, init_args=dict({name}=…)) or "
                f"--model.{name}"
            )
        arguments[name] = value
    return arguments


def adopt(model: SoftmaxRegression, settings: Mapping[str, Any], given: Collection[str]) -> None:
    """Take over what had been set on a checkpoint's model after it was made.

    Args:
        model: As its arguments made it.
        settings: The checkpoint's.
        given: Names of the arguments that count in place of them.
    """
    present = settings_of(model)
    changed = [n for n in LIVE if n in settings and n not in given and settings[n] != present[n]]
    for name in changed:
        value = settings[name]
        if name == "l2":
            value = non_negative(name, value)
        elif name == "class_weight":
            value = class_weights(value, model.class_names)
        elif name == "label_smoothing":
            value = check_smoothing(value)
        elif name == "ignore_index":
            value = whole(name, value)
        else:
            check_threshold(value, model.num_classes)
        setattr(model, name, value)


def _hparams_of(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(
            f"expected plain YAML in hparams_file, got {path}, which cannot be read as such: "
            f"{reason(error)}; give the arguments by name"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"expected names and values in {path}, got none; give them by name")
    return plain_ones(content)


def _warn_of_another_class(kind: type[SoftmaxRegression], content: Mapping[str, Any]) -> None:
    saved = str(notes(content).get("class", kind.__name__))
    if saved.rpartition(".")[2] not in {base.__name__ for base in kind.__mro__}:
        rank_zero_warn(
            f"The checkpoint is of {printable(saved)}; loaded as {kind.__name__}, it has that "
            "class's features and loss"
        )


def _where_it_was(storage: Any, location: str) -> Any:
    """On the device it was saved from, if there is one here, as Lightning does."""
    from lightning.pytorch.core.saving import _default_map_location

    return _default_map_location(storage, location)
