"""Command lines that make no sense."""

from bad_input.actions import BAD, USAGE, fit, ship, train

# fmt: off
CASES = [
    ("test of a model that was never trained", train("test"), BAD,
     "test needs the checkpoint of a trained model, got none; name it with --ckpt_path"),
    ("unknown option", train("fit --nope=1"), USAGE, "error: unrecognized arguments: --nope=1"),
    ("unknown subcommand", train("fitt"), USAGE,
     "invalid choice: 'fitt' (choose from 'fit', 'validate', 'test', 'predict', 'coeffici"),
    ("no subcommand", train(""), USAGE, 'expected "subcommand" to be one of {fit,validate,test,'),
    ("missing config", train("fit --config=absent.yaml"), USAGE, "File does not exist: …absent.y"),
    ("config that would run code", train("fit --config=bomb.yaml"), USAGE,
     "could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.mk"),
    ("unknown data module", train("fit --data=NopeDataModule"), USAGE, "NopeDataModule"),
    ("class_weight of another string on the command line", fit("--model.class_weight=balance"),
     USAGE, "Expected a typing.Literal['balanced']"),
    ("learning rate negative", fit("--model.optimizer=Adam --model.optimizer.lr=-1"), BAD,
     "Invalid learning rate: -1"),
    ("no such accelerator", fit("--trainer.accelerator=abacus"), BAD,
     "You selected an invalid accelerator name: `accelerator='abacus'`. Available names are:"),
    ("unknown option of smx-export", ship("inspect good.onnx --nope"), USAGE,
     "smx-export: error: unrecognized arguments: --nope"),
    ("unknown subcommand of smx-export", ship("transmute good.ckpt"), USAGE,
     "invalid choice: 'transmute' (choose from"),
    ("verify without a checkpoint", ship("verify good.onnx"), BAD,
     "verify needs something to compare with: --checkpoint, --targets, or both"),
]
# fmt: on
