"""Labels that turn a little beside the border, of every profile."""

import numpy as np

from mutations.conditions import Nodes, batch_above, batch_of, named, row_from
from mutations.editing import node
from mutations.profile_editing import EVERY, THRESHOLD, change, entry
from mutations.table import ARGMAX, Table

CASES = Table()
PRECISE = ("portable", "robust", "int8", "float16")  # images have no rows between two pixels


def moved(by, of):
    """One class is that many nats ahead, as far as the label is concerned."""

    def corrupt(proto):
        winner = node(proto, "winner")
        g = Nodes(proto)
        classes = 2 if any(t.name == "handicap" for t in proto.graph.initializer) else 3
        ahead = np.zeros(classes)
        ahead[of] = by
        winner.input[0] = g.op("Add", winner.input[0], ahead)
        g.insert(list(proto.graph.node).index(winner))

    return named(corrupt, f"label with class {of} {by:g} nats ahead")


for by in (0.01, -0.01):
    for of in (0, 1, 2):
        models = (*EVERY, THRESHOLD) if of == 1 else EVERY
        CASES.seen_by(ARGMAX, *models)(moved(by, of))
for by in (0.001, -0.001, 3e-4, -3e-4):
    for of in (0, 1, 2):
        models = (*PRECISE, THRESHOLD) if of == 1 else PRECISE
        CASES.seen_by(ARGMAX, *models)(moved(by, of))


def threshold_off(by):
    def corrupt(proto):
        change(proto, "handicap", entry(0, lambda h: h + by))

    return named(corrupt, f"threshold {by:g} nats off")


for by in (0.01, -0.01, 0.001, -0.001, 3e-4):
    CASES.seen_by(ARGMAX, THRESHOLD)(threshold_off(by))


def label_wrong_where(condition):
    """The worst class, there."""

    def corrupt(proto):
        winner = node(proto, "winner")
        g = Nodes(proto)
        scores = winner.input[0]
        winner.input[0] = g.op("Where", condition(g), g.op("Neg", scores), scores)
        g.insert(list(proto.graph.node).index(winner))

    return named(corrupt, f"label wrong for {condition.__name__}")


for condition in (batch_of(3), batch_above(256), row_from(256)):
    CASES.seen_by(ARGMAX, *EVERY, THRESHOLD)(label_wrong_where(condition))
