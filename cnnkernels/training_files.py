"""The files that a training run leaves: its checkpoint, and what happened in numbers."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cnnkernels.data import DataError
from cnnkernels.files import replacing
from cnnkernels.training import Evaluation, History, Step


def save_checkpoint(path: Path, state: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write {"state_dict", "run", "meta"}: CPU tensors and plain values, for `torch.load(path, weights_only=True)`.

    `state` is what `train` hands out. Its state_dict is a plain torch model's, whatever trained it:
    `LeNet5(layers=torch.nn).load_state_dict(checkpoint["state_dict"])`.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state["state_dict"].items()}
    # Opened here: torch.save's own writer does not raise OSError.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save({**state, "state_dict": weights, "meta": meta}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU. Raises DataError of one line where the file is something else."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises whatever zipfile, pickle and its own readers do
        raise DataError(f"{path}: damaged, or not a checkpoint: {str(error).splitlines()[0]}") from error
    if not (isinstance(checkpoint, dict) and {"state_dict", "run", "meta"} <= checkpoint.keys()):
        raise DataError(f"{path}: not a checkpoint that a run can go on from")
    return checkpoint


def save_metrics(folder: Path, history: History, evaluation: Evaluation | None, meta: dict[str, Any]) -> None:
    """Write metrics.json (everything) and steps.csv (step, epoch, loss, learning_rate) into `folder`."""
    report: dict[str, Any] = {"meta": meta} | asdict(history)
    if evaluation is not None:
        report["test"] = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
        report["confusion"] = evaluation.confusion.tolist()
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    with replacing(folder / "steps.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Step.__dataclass_fields__)
        writer.writerows(asdict(step).values() for step in history.steps)
