"""Command lines whose model may come from a checkpoint, which is read as plain data.

Lightning's own merges the hyper-parameters of a checkpoint into the configuration, through a parser
that imports and calls what they name. Here nothing of the file comes near the parser: its plain
values are taken when the model is constructed. What the user gives, on the command line or in a
configuration file, goes before them; defaults come last.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from functools import partial
from typing import Any

from jsonargparse import ArgumentError, Namespace, dict_to_namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from smx_lightning.checkpoint.describing import ACTIVATION
from smx_lightning.checkpoint.loading import adopt, arguments_for, check_sizes, constructed
from smx_lightning.checkpoint.optimizers import KNOWN, OPTIMIZER, PARTIAL, SCHEDULE
from smx_lightning.checkpoint.plain import annotations_of, wants_plain
from smx_lightning.checkpoint.reading import Checkpoint, read_checkpoint
from smx_lightning.cli.described import encode_as_trained, of_data, require_sizes
from smx_lightning.cli.unnamed import named, raising
from smx_lightning.errors import InputError
from smx_lightning.errors.completion import require_shtab, shell_asked
from smx_lightning.errors.naming import how_to_name
from smx_lightning.module import SoftmaxRegression

NAMES = ("feature_names", "schema")
FROM_DATA = ("num_features", "num_classes", "class_names", "input_shape", "input_range", *NAMES)
SPOKEN_FOR = ("class_path", "init_args", "dict_kwargs")  # to the parser these are no arguments
BY_CHECKPOINT = ("predict", "coefficients")  # subcommands that ask it, and not the data, for sizes
FOUND_BY_TRAINER = ("best", "last", "hpc", "registry")  # in place of a path


class CheckpointCLI(LightningCLI):
    """LightningCLI with ``ckpt_path`` read safely; sizes and names are those of the data."""

    checkpoint: Checkpoint | None = None
    given: tuple[str, ...] = ()  # names of the model's arguments that the user gave
    untold: tuple[str, ...] = ()  # names of those that the data should have told

    def link_model_to_data(self, parser: LightningArgumentParser) -> None:
        """Number of features, classes, names, shape and range flow from the data to the model."""
        for name in FROM_DATA:
            parser.link_arguments(
                "data",
                f"model.init_args.{name}",
                compute_fn=partial(self._of_data, name),
                apply_on="instantiate",
            )

    def _of_data(self, name: str, data: LightningDataModule) -> Any:
        """What the data say of themselves; they are not asked where rows may have no labels."""
        if self._stands_by_checkpoint():
            return None
        given = self.typed.get(f"{self.config.subcommand}.model.init_args")
        if self.checkpoint is not None:
            encode_as_trained(data, self.checkpoint.settings)
        try:
            return of_data(name, data, given)
        except LookupError:
            self.untold = (*self.untold, name)
            return None

    def _stands_by_checkpoint(self) -> bool:
        return self.checkpoint is not None and self.config.subcommand in BY_CHECKPOINT

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse what is given alone, then all: what is given counts, whatever its value."""
        given = sys.argv[1:] if args is None else args
        shell = shell_asked(given) if isinstance(given, list) else None
        if shell is not None:
            require_shtab()
            print(parser.get_completion_script(f"shtab-{shell}"))
            ArgumentParser.exit(parser)  # jsonargparse has its own parsers do nothing any more
        self.typed, completed = self._understood(parser, given)
        self.choose_defaults()
        if isinstance(completed, (dict, Namespace)):
            self.config = parser.parse_object(completed)
        else:  # not by way of Lightning, which warns of arguments that are not sys.argv's
            self.config = parser.parse_args(completed)

    def _understood(self, parser: LightningArgumentParser, args: Any) -> tuple[Namespace, Any]:
        """What is given alone, and the arguments, with an optimiser's name where it lacked."""
        parse = partial(_typed, parser)
        with raising(parser, *self._subcommand_parsers.values()):
            try:
                return parse(args), args
            except ArgumentError:
                args = named(parse, args)
        return parse(args), args  # or the parser ends with its complaint

    def choose_defaults(self) -> None:
        """Hook: the parser's defaults may depend on what is given."""

    def _parse_ckpt_path(self) -> None:
        """Read a given checkpoint, and find out what is given besides."""
        subcommand = self.config.subcommand
        section = self.config[subcommand]
        path = section.get("ckpt_path")
        if section.get("weights_only") is False:
            raise InputError(
                "expected to read checkpoints as plain data, got --weights_only false, which would "
                "run code from them; leave it out"
            )
        if not path and subcommand != "fit":
            raise InputError(
                f"{subcommand} needs the checkpoint of a trained model, got none; name it with "
                "--ckpt_path"
            )
        if not path or path in FOUND_BY_TRAINER:
            return
        checkpoint = read_checkpoint(path)
        named = section.model.class_path
        if checkpoint.model_class.rpartition(".")[2] != named.rpartition(".")[2]:
            raise InputError(
                f"expected a checkpoint of {named}, got one of {checkpoint.model_class} in {path}; "
                f"{how_to_name(checkpoint.model_class, '--model', '.')}"
            )
        self.checkpoint = checkpoint
        given = self.typed.get(f"{subcommand}.model.init_args")
        self.given = () if given is None else tuple(vars(given))

    def _add_instantiators(self) -> None:
        """Have the model constructed here; hyper-parameters are then what its class was given."""
        self.parser.add_instantiator(self._model, SoftmaxRegression, subclasses=True)

    def _model(
        self, kind: type[SoftmaxRegression], /, *args: Any, **kwargs: Any
    ) -> SoftmaxRegression:
        """The model: what is given counts, then the checkpoint's plain values, then defaults."""
        kwargs = {name: value for name, value in kwargs.items() if name not in self.untold}
        if self.checkpoint is None:
            require_sizes(kind, self.untold, self.config[self.config.subcommand].data.class_path)
            return kind(*args, **kwargs)
        of_data = () if self._stands_by_checkpoint() else FROM_DATA
        unnamed = {name for name in NAMES if kwargs.get(name) is None}  # the checkpoint's stay
        told = (*self.given, *(name for name in of_data if name not in unnamed))
        given = {name: kwargs[name] for name in told if name in kwargs}
        saved, left_out = self.checkpoint.hyper_parameters, self.checkpoint.left_out
        taken = arguments_for(kind, saved, left_out, given)
        check_sizes(kind, taken, self.checkpoint.state_dict, given)
        model = constructed(kind, {**kwargs, **taken}, {**kwargs, **given})
        adopt(model, self.checkpoint.settings, given)
        self._show(model, taken.keys() - given.keys())
        return model

    def _show(self, model: SoftmaxRegression, names: Iterable[str]) -> None:
        """Let the configuration that is saved say what the checkpoint's values were.

        The parser looks at them once more, so only those that it can take for nothing else.
        """
        shown = self.config[self.config.subcommand].model.init_args
        annotations = annotations_of(type(model).__init__)
        for name in names:
            value = model.hparams.get(name)
            if name in (OPTIMIZER, SCHEDULE):
                if value is None or (isinstance(value, dict) and _only_numbers(value)):
                    self._show_made(name, None if value is None else dict_to_namespace(value))
            elif name == ACTIVATION and name in shown and value == model._smx_activation.spec:
                shown[name] = value  # a member of the family, and no class path
            elif name in shown and wants_plain(annotations.get(name, Any)):
                shown[name] = value

    def _show_made(self, name: str, description: Namespace | None) -> None:
        """Show an optimiser or a schedule, where the parser would have taken it so."""
        shown = self.config[self.config.subcommand].model.init_args
        before, shown[name] = shown.get(name), description
        try:
            self.parser.validate(self.config)
        except (TypeError, ValueError, KeyError):  # arguments that the class has not, or of others
            shown[name] = before

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """As Lightning's, but that no environment variable makes it unpickle a checkpoint."""
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}


def _typed(parser: LightningArgumentParser, args: Any) -> Namespace:
    """What the user gives, on the command line and in configuration files, without defaults."""
    if isinstance(args, (dict, Namespace)):
        return args if isinstance(args, Namespace) else dict_to_namespace(args)
    printed = [argument for argument in args if not argument.startswith("--print_config")]
    return parser.parse_args(printed, defaults=False, _skip_validation=True)


def _only_numbers(description: dict[str, Any]) -> bool:
    """Whether a description names a class of ours or torch's, and numbers, but nothing else."""

    def number(value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return all(number(entry) for entry in value)
        return value is None or isinstance(value, (bool, int, float))

    kind, arguments = (description.get(key) for key in ("class_path", "init_args"))
    if not (isinstance(kind, str) and isinstance(arguments, dict)):
        return False
    known = kind in KNOWN and PARTIAL not in description
    named = all(
        isinstance(name, str) and name.isidentifier() and name not in SPOKEN_FOR
        for name in arguments
    )
    return known and named and all(number(value) for value in arguments.values())
