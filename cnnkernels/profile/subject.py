"""What is to be profiled, from what a user writes: a layer of a suite, a problem in text, or a file of trials.

A problem is read as this project prints problems (bench's layers, the test suite's problems), its attributes in any order:

    [OP] [nN] cC HxW [kK] RxS [stride A] [pad A] [dilation A] [output pad A] [groups G] [ceil] [without pad]

A is a number or HEIGHTxWIDTH. OP is a function of torch.nn.functional, or max or avg; without one it is conv2d. n is 1, k as many
as c, stride 1 unless given; `window A` may stand for a pooling's RxS, and then its stride is the window unless given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cnnkernels.bench import suites
from cnnkernels.bench.layer import ADAPTIVE, CONVOLUTIONS, OPS, Layer, Pair
from cnnkernels.bench.suites import Entry

_OPERATIONS = {op: op for op in OPS} | {
    "max": "max_pool2d", "avg": "avg_pool2d",
    "adaptive_max": "adaptive_max_pool2d", "adaptive_avg": "adaptive_avg_pool2d",
}  # fmt: skip
_SIZES = {"n": "N", "c": "C", "k": "K"}
_PAIRS = {"stride": "stride", "pad": "padding", "dilation": "dilation"}
#: Words of the test suite's problems that change no size: what the pass is meant for, and values.
_NO_SIZE = ("transposed", "unbatched", "integers", "special")
_LAYOUTS = {"contiguous": "nchw", "channels_last": "channels_last"}


@dataclass(frozen=True)
class Problem:
    """A problem to profile: its layer, and how it is called."""

    layer: Layer
    name: str  # "resnet50:stem", or ""
    layout: str = ""  # as the text asks for, or ""


@dataclass(frozen=True)
class Trials:
    """A file of trials, all of them or one."""

    path: Path
    trial: str = ""


def parse_subject(text: str, batch: int | None = None) -> Problem | Trials:
    """Read what the user wrote.

    `batch` images; without it, one for a layer of a suite, and what the text says for a problem in text.

    Raises:
        ValueError: what is wrong, with what was meant perhaps.
    """
    text = text.strip()
    path, _, trial = text.partition(".cu:")
    if text.endswith(".cu") or trial:
        file = Path(text if text.endswith(".cu") else f"{path}.cu")
        if not file.is_file():
            raise ValueError(f"{file}: there is no such file")
        return Trials(file, trial)
    if _looks_like_a_problem(text):
        layer, layout = parse_problem(text)
        return Problem(layer if batch is None else layer.with_batch(batch), "", layout)
    entry = find_layer(text)
    return Problem(entry.problem.with_batch(batch or 1), f"{entry.net}:{entry.layer}")


def find_layer(text: str) -> Entry:
    """The layer `text` of the published suites: "suite:layer", or a layer's name that one net only has.

    Raises:
        ValueError: there is none, or there are several; the message names those that are like it.
    """
    suite, colon, layer = text.partition(":")
    if colon:
        return suites.load(suite).find(layer)
    every = suites.load(suites.ALL).entries
    found = [entry for entry in every if entry.layer == text]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"several nets have a layer {text!r}: {_alternatives(found)}")
    if text in suites.names():
        raise ValueError(
            f"{text} is a suite: name one of its layers, as {_alternatives(suites.load(text).entries[:3])}"
        )
    names = list(dict.fromkeys(entry.layer for entry in every))
    near = get_close_matches(text, names, n=4, cutoff=0.5) or [name for name in names if text.lower() in name.lower()]
    meant = [entry for entry in every if entry.layer in near][:6]
    hint = f"did you mean {_alternatives(meant)}?" if meant else "`cnnkernels bench --list` has the suites."
    raise ValueError(f"no layer of the published suites is called {text!r}: {hint} And {_grammar()}")


def trial_names(path: Path) -> list[str]:
    """The trials in a file, as its text has them: none that a macro of its own makes."""
    return re.findall(r"^\s*CNN_TRIAL\((\w+)\)", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)


class _Words:
    """The words of a problem, taken from the left; every complaint quotes the whole text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._words = text.split()

    def __bool__(self) -> bool:
        return bool(self._words)

    def peek(self) -> str:
        return self._words[0] if self._words else ""

    def take(self) -> str:
        return self._words.pop(0)

    def wrong(self, why: str) -> ValueError:
        return ValueError(f"{self.text!r}: {why}")

    def pair(self, what: str) -> Pair:
        """What comes next, as (height, width)."""
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", self.peek())
        if match is None:
            raise self.wrong(f"{what} is a number or HEIGHTxWIDTH, not {self.peek()!r}")
        self.take()
        return int(match[1]), int(match[2] or match[1])


def parse_problem(text: str) -> tuple[Layer, str]:
    """A problem in text, and the layout that it names, or "".

    Raises:
        ValueError: which word it is that means nothing here, what is missing, or what torch would refuse.
    """
    words = _Words(text)
    op = _OPERATIONS.get(words.peek())
    if op:
        words.take()
    values: dict[str, Any] = {}
    extents: list[Pair] = []
    layout, window, same = "", False, False

    def give(name: str, word: str, value: Any) -> None:
        if name in values:
            raise words.wrong(f"{word} is given twice")
        values[name] = value

    while words:
        if re.fullmatch(r"\d+x\d+", words.peek()):
            extents.append(words.pair("a size"))
            continue
        word = words.take()
        if match := re.fullmatch(r"([nck])(\d+)", word):
            give(_SIZES[match[1]], match[1], int(match[2]))
        elif word in _PAIRS:
            give(_PAIRS[word], word, words.pair(word))
        elif (word, words.peek()) == ("output", "pad"):
            words.take()
            give("output_padding", "output pad", words.pair("output pad"))
        elif word == "groups":
            groups, others = words.pair(word)
            if groups != others:
                raise words.wrong("groups is one number")
            give("groups", word, groups)
        elif word == "window":
            window = True
            extents.append(words.pair(word))
        elif word == "ceil":
            give("ceil_mode", word, True)
        elif (word, words.peek()) == ("without", "pad"):
            words.take()
            give("count_include_pad", "without pad", False)
        elif word == "same":
            same = True
        elif word == "divisor":
            raise words.wrong("a divisor makes no difference to what a kernel moves: leave it out")
        elif word in _LAYOUTS:
            layout = _LAYOUTS[word]
        elif word not in _NO_SIZE:
            raise words.wrong(f"{word!r} means nothing here; {_grammar()}")
    return _layer(words, op, values, extents, window, same), layout


def _layer(
    words: _Words, op: str | None, values: dict[str, Any], extents: list[Pair], window: bool, same: bool
) -> Layer:
    op = op or ("max_pool2d" if window else "conv2d")
    pooling = op not in CONVOLUTIONS
    for name, word in (("C", "cC"), *([] if pooling else [("K", "kK")])):
        if name not in values:
            raise words.wrong(f"{word} is missing; {_grammar()}")
    if len(extents) != 2:
        raise words.wrong(
            f"two sizes are wanted, the image's and the {'window' if pooling else 'filter'}'s; {_grammar()}"
        )
    if pooling and "K" in values:
        raise words.wrong("a pooling has no filters, so no k")
    values = {"N": 1} | values
    if not all(values.get(name, 1) for name in ("N", "C", "K")):
        raise words.wrong("there is nothing to launch for a problem without elements")
    (H, W), extent = extents
    if op in ADAPTIVE:
        values["output"] = extent
    else:
        values["R"], values["S"] = extent
    if window:
        values.setdefault("stride", extent)
    if same:
        if "padding" in values:
            raise words.wrong("same is a padding, and pad another")
        spread = [d * (taps - 1) for d, taps in zip(values.get("dilation", (1, 1)), extent, strict=True)]
        if any(pixels % 2 for pixels in spread):
            raise words.wrong("same pads one side more than the other here, which a layer cannot state")
        values["padding"] = spread[0] // 2, spread[1] // 2
    try:
        return Layer(op, H=H, W=W, **values)
    except ValueError as error:
        raise words.wrong(str(error)) from error


def _looks_like_a_problem(text: str) -> bool:
    return text.partition(" ")[0] in _OPERATIONS or bool(re.search(r"(^|\s)c\d+\s+\d+x\d+\b", text))


def _alternatives(entries: Iterable[Entry]) -> str:
    return " or ".join(f"{entry.net}:{entry.layer}" for entry in entries)


def _grammar() -> str:
    return "a problem is written as 'n1 c64 56x56 k64 3x3 pad 1 stride 2' or 'max_pool2d n1 c64 112x112 3x3 stride 2 pad 1'"
