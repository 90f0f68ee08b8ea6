"""Pictures of the family on three classes: ``python examples/simplex.py docs/pictures``.

Scores may be shifted by a number without changing p, so that those of three classes are a plane:
each picture is a part of it, seen along (1, 1, 1). Needs matplotlib.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch

from smx_lightning.activations import activation_of

mpl.use("agg")

MEMBERS: dict[str, Any] = {
    "softmax": "softmax",
    "1.25-entmax": {"alpha": 1.25},
    "entmax15": "entmax15",
    "sparsemax": "sparsemax",
}
REACH, POINTS = 3.0, 321  # of the plane, in scores
# Orthonormal, and orthogonal to (1, 1, 1): class 0 above, 1 to the left, 2 to the right.
RIGHT = torch.tensor([0.0, -1.0, 1.0]) / math.sqrt(2)
UP = torch.tensor([2.0, -1.0, -1.0]) / math.sqrt(6)
COLOURS = torch.tensor([[0.85, 0.37, 0.01], [0.11, 0.62, 0.47], [0.46, 0.44, 0.70]])  # Dark2
ONLY = ("#ffffff", "#bdbdbd", "#636363")  # supports of one, two and three classes
LEVELS = [1e-3, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


def plane() -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates (points,), and the scores (points, points, 3) float64 of the plane."""
    at = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    right, up = torch.meshgrid(at, at, indexing="xy")
    return at, right[..., None] * RIGHT + up[..., None] * UP


def maps(path: Path) -> None:
    """Three pictures of each member: p, how many classes have some of it, and the loss of one."""
    coordinates, scores = plane()
    at = coordinates.numpy()
    extent = (-REACH, REACH, -REACH, REACH)
    figure, axes = plt.subplots(
        3, len(MEMBERS), figsize=(11, 8.4), sharex=True, sharey=True, layout="constrained"
    )
    for column, (name, spec) in zip(axes.T, MEMBERS.items(), strict=True):
        activation = activation_of(spec)
        probs = activation.probs(scores)
        support = (probs > 0).sum(-1).numpy()
        loss = (activation.entropy(probs) + (probs * scores).sum(-1) - scores[..., 0]).numpy()
        column[0].set_title(name)
        column[0].imshow((probs @ COLOURS.double()).numpy(), origin="lower", extent=extent)
        column[1].imshow(
            support, origin="lower", extent=extent, cmap=mpl.colors.ListedColormap(ONLY), vmin=1,
            vmax=3,
        )  # fmt: skip
        column[1].contour(at, at, probs[..., 0].numpy(), [0.25, 0.5, 0.75], colors="#d95f02")
        filled = column[2].contourf(at, at, loss, [0, *LEVELS], cmap="YlGnBu", extend="max")
        column[2].contour(at, at, loss, LEVELS[:1], colors="black", linewidths=0.8)
    for row, label in zip(
        axes, ["p as a mixture of colours", "support, and p₀ = ¼, ½, ¾", "loss of class 0"],
        strict=True,
    ):  # fmt: skip
        row[0].set_ylabel(label)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], aspect="equal")
    figure.colorbar(filled, ax=axes[2], shrink=0.9)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def two_classes(path: Path) -> None:
    """Of two classes: p₁ and the loss of class 1, by the difference of the scores."""
    ahead = torch.linspace(-4, 4, 801, dtype=torch.float64)
    scores = torch.stack([torch.zeros_like(ahead), ahead], 1)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name, spec in MEMBERS.items():
        activation = activation_of(spec)
        probs = activation.probs(scores)
        loss = activation.entropy(probs) + (probs * scores).sum(-1) - scores[:, 1]
        axes[0].plot(ahead.numpy(), probs[:, 1].numpy(), label=name)
        axes[1].plot(ahead.numpy(), loss.numpy(), label=name)
    axes[0].set(xlabel="s₁ - s₀", title="p₁")
    axes[1].set(xlabel="s₁ - s₀", title="loss of class 1")
    axes[0].legend()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    """Write the pictures; print their names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (maps, two_classes):
        path = folder / f"{draw.__name__}.png"
        draw(path)
        print(path)


if __name__ == "__main__":
    main()
