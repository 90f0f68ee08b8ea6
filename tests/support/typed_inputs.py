"""Models of token ids and of several inputs, and their answers in numpy alone, in float64."""

import numpy as np
import torch
from torch import nn

from smx_lightning import SoftmaxRegression

WORDS, LENGTH, CLASSES = 40, 6, 3


class Tokens(SoftmaxRegression):
    """The mean of the tokens' embeddings; ids from 1 on, as 0 is left for padding."""

    def __init__(self, low: int = 1, dtype: str = "int64", **kwargs):
        super().__init__(
            8,
            CLASSES,
            input_shape=(LENGTH,),
            input_dtype=dtype,
            input_range=(low, WORDS - 1),
            **kwargs,
        )
        self.words = nn.Embedding(WORDS, 8)

    def features(self, x):
        return self.words(x).mean(1)


class Several(SoftmaxRegression):
    """An image, an age, and words of which a mask says which are there."""

    def __init__(self, **kwargs):
        super().__init__(
            11,
            CLASSES,
            input_shape={"image": (4, 4), "age": (), "ids": (LENGTH,), "mask": (LENGTH,)},
            input_dtype={"ids": "int64", "mask": "bool"},
            input_range={"ids": (0, WORDS - 1), "image": (0, 1)},
            **kwargs,
        )
        self.words, self.pixels = nn.Embedding(WORDS, 4), nn.Linear(16, 6)

    def features(self, *, image, age, ids, mask):
        there = mask[..., None]
        bag = (self.words(ids) * there).sum(1) / (there.sum(1) + 1)
        return torch.cat([torch.tanh(self.pixels(image.flatten(1))), age[:, None], bag], 1)


def made(kind, **kwargs):
    """A model with weights that tell its classes apart."""
    torch.manual_seed(3)
    model = kind(**kwargs)
    nn.init.normal_(model.words.weight)
    nn.init.normal_(model.linear.weight)
    return model.eval()


def rows(kind, count, seed=0):
    """Inputs as numpy arrays: of Tokens one, of Several a dict."""
    rng = np.random.default_rng(seed)
    if kind is Tokens:
        return rng.integers(1, WORDS, (count, LENGTH))
    return {
        "image": rng.random((count, 4, 4), np.float32),
        "age": rng.standard_normal(count).astype(np.float32),
        "ids": rng.integers(0, WORDS, (count, LENGTH)),
        "mask": rng.random((count, LENGTH)) < 0.5,
    }


def tensors(x):
    """The same as torch wants them."""
    if isinstance(x, dict):
        return {name: torch.from_numpy(part) for name, part in x.items()}
    return torch.from_numpy(x)


def probabilities(model, x):
    """What the model should answer, (n, classes) float64, by numpy from its arrays."""
    arrays = {n: p.detach().numpy().astype(np.float64) for n, p in model.named_parameters()}
    if isinstance(x, dict):
        flat = x["image"].reshape(len(x["age"]), -1).astype(np.float64)
        seen = np.tanh(flat @ arrays["pixels.weight"].T + arrays["pixels.bias"])
        bag = np.zeros((len(flat), 4))
        for i, (ids, mask) in enumerate(zip(x["ids"], x["mask"], strict=True)):
            bag[i] = arrays["words.weight"][ids[mask]].sum(0) / (mask.sum() + 1)
        features = np.concatenate([seen, x["age"][:, None], bag], 1)
    else:
        features = np.stack([arrays["words.weight"][ids].mean(0) for ids in x])
    statistics = model.preprocessing
    if statistics.method != "none":
        features = (features - statistics.mean.double().numpy()) / statistics.scale.double().numpy()
    scores = features @ arrays["smx.0.weight"].T + arrays["smx.0.bias"]
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)
