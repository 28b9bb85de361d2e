"""The three pictures of a training run: its curves, its confusion matrix, and what the first layer has learned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cnnkernels.files import replacing
from cnnkernels.training import Evaluation, History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _MUTED, _GRID = "#22262e", "#6b7280", "#e5e7eb"
_BLUE, _ORANGE = "#2563eb", "#ea580c"
_STYLE: Any = {
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "axes.axisbelow": True,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "figure.dpi": 150,
    "figure.facecolor": "white",
}
# Of so many classes at most, each cell of the confusion matrix has room for its number.
_CLASSES_WITH_NUMBERS = 26
_SHOWN_FILTERS = 16


def plot_curves(path: Path, history: History, title: str) -> None:
    """Write the loss of every step beside the accuracies of every epoch."""
    with _figure(path, 10, 4, title) as figure:
        loss_axes, accuracy_axes = figure.subplots(1, 2)
        steps = [step.step for step in history.steps]
        losses = [step.loss for step in history.steps]
        loss_axes.plot(steps, losses, color=_BLUE, alpha=0.25, linewidth=0.8, label="each step")
        loss_axes.plot(steps, _smoothed(losses), color=_BLUE, linewidth=1.8, label="smoothed")
        loss_axes.set(title="Training loss", xlabel="step", ylabel="cross-entropy", ylim=(0, None))
        loss_axes.margins(x=0.01)
        loss_axes.legend(frameon=False)
        accuracy_axes.set(title="Accuracy", xlabel="epoch", ylabel="%")
        if history.epochs:
            _plot_accuracies(accuracy_axes, history)


def plot_confusion(path: Path, evaluation: Evaluation, class_names: Sequence[str], title: str) -> None:
    """Write the confusion matrix of the test images; colour is the share of the true class, numbers are counts."""
    counts = evaluation.confusion
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    size = min(12.0, max(5.6, 1.4 + 0.34 * len(class_names)))
    with _figure(path, size + 1, size, title) as figure:
        axes = figure.subplots()
        # A square root spreads the few errors over the light half of the scale.
        image = axes.imshow(shares.sqrt().numpy(), cmap="Blues", vmin=0, vmax=1)
        places = range(len(class_names))
        axes.set_xticks(places, class_names)
        axes.set_yticks(places, class_names)
        axes.set(xlabel="answer", ylabel="true class")
        axes.grid(visible=False)
        axes.tick_params(length=0, labelcolor=_INK)
        axes.spines[:].set_visible(False)
        if len(class_names) <= _CLASSES_WITH_NUMBERS:
            for row, column in counts.nonzero().tolist():
                colour = "white" if shares[row, column] > 0.4 else _INK
                number = str(int(counts[row, column]))
                axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=9)
        ticks = [0, 0.01, 0.1, 0.25, 0.5, 1]
        bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02, ticks=[share**0.5 for share in ticks])
        bar.ax.set_yticklabels([f"{share:.0%}" for share in ticks])
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)


def plot_features(path: Path, first_layer: nn.Module, images: Tensor, title: str) -> None:
    """Write the first 16 filters of the first convolution above the feature maps they make of a few images [n, C, H, W].

    The maps are computed by `first_layer` itself. Filters of several channels are shown by their mean.
    """
    parameter = next(first_layer.parameters())
    with torch.no_grad():
        maps = first_layer(images.to(parameter.device)).cpu()
    filters = parameter.detach().cpu().mean(1)[:_SHOWN_FILTERS]
    columns, rows = len(filters) + 1, len(images) + 1
    with _figure(path, 1.15 * columns + 0.4, 1.15 * rows + 0.9, title) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        limit = float(filters.abs().max())
        for axes in grid.flat:
            axes.set_axis_off()
        for k, weights in enumerate(filters):
            grid[0, k + 1].imshow(weights.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
            grid[0, k + 1].set_title(f"filter {k + 1}", fontsize=9, loc="center")
        caption = "filters\nred > 0, blue < 0\n\nimages and\nfeature maps below"
        grid[0, 0].text(0.5, 0.5, caption, ha="center", va="center", fontsize=8, color=_MUTED)
        for n, image in enumerate(images.cpu()):
            grid[n + 1, 0].imshow(image.mean(0).numpy(), cmap="gray_r")
            for k in range(len(filters)):
                # One scale per filter, around 0, so that maps of different images compare.
                reach = float(maps[:, k].abs().max())
                grid[n + 1, k + 1].imshow(maps[n, k].numpy(), cmap="RdBu_r", vmin=-reach, vmax=reach)


def _plot_accuracies(axes: Axes, history: History) -> None:
    epochs = [epoch.epoch for epoch in history.epochs]
    series = (
        ("training, during the epoch", [100 * epoch.train_accuracy for epoch in history.epochs], _BLUE, "s"),
        ("test, after it", [100 * epoch.test_accuracy for epoch in history.epochs], _ORANGE, "o"),
    )
    for name, values, colour, marker in series:
        axes.plot(epochs, values, color=colour, marker=marker, markersize=4, linewidth=1.8, label=name)
    last = series[1][1][-1]
    axes.annotate(
        f"{last:.2f} %",
        (epochs[-1], last),
        (0, 8),
        textcoords="offset points",
        ha="right",
        color=_ORANGE,
        weight="bold",
    )
    lowest = min(min(values) for _, values, _, _ in series)
    axes.set_ylim(max(0.0, lowest - 5), 102)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, loc="lower right")


def _smoothed(values: Sequence[float]) -> list[float]:
    """The mean over a window around each value, a thirtieth of the run wide and cut off at both ends."""
    reach = len(values) // 60
    windows = (values[max(0, step - reach) : step + reach + 1] for step in range(len(values)))
    return [sum(window) / len(window) for window in windows]


class _figure:
    """A figure with our style and a headline, written to `path` when the block ends well."""

    def __init__(self, path: Path, width: float, height: float, title: str) -> None:
        self.path, self.size, self.title = path, (width, height), title

    def __enter__(self) -> Figure:
        import matplotlib
        from matplotlib.figure import Figure

        self.style: Any = matplotlib.rc_context(_STYLE)
        self.style.__enter__()
        self.figure = Figure(figsize=self.size, layout="constrained")
        # A bold letter is about 0.65 of the font size wide: long headlines get smaller ones, so as to fit.
        fitting = 0.97 * 72 * self.size[0] / (0.65 * len(self.title))
        self.figure.suptitle(self.title, x=0.01, ha="left", weight="bold", fontsize=min(12.0, fitting))
        return self.figure

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with replacing(self.path) as temporary:
                    self.figure.savefig(temporary)  # a Figure of its own draws with Agg: no display, no global state
        finally:
            self.style.__exit__(None, None, None)
