"""Editing what a checkpoint says of the Trainer's progress through an epoch."""

from __future__ import annotations

from typing import Any


def settle(fit_loop: dict[str, Any], *, rewind: bool = False) -> None:
    """Let the state say that the batches completed so far are, and that none is under way.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``, changed in place.
        rewind: Take those of the present epoch back too, unless it had no more to come.
    """
    progress = fit_loop["epoch_loop.batch_progress"]
    current, total = progress["current"], progress["total"]
    if rewind and progress["is_last_batch"]:
        return
    batches = 0 if rewind else current["completed"]
    completed = total["completed"] - current["completed"] + batches
    for counts, number in ((current, batches), (total, completed)):
        counts.update(dict.fromkeys(counts, number))
    progress["is_last_batch"] = False
    for loader in fit_loop["state_dict"].get("combined_loader", []):
        if loader.keys() == {"batches"}:
            loader["batches"] = batches
