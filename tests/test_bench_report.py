"""The report: the views, the page, its pictures and the README's table."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_bench_compare import make_row, make_run, rows_of

pytest.importorskip("altair", reason="the report needs cnnkernels[report]")
pytest.importorskip("vl_convert", reason="the report needs cnnkernels[report]")

from cnnkernels.bench import suites
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.report import charts, page, readme, vega, views
from cnnkernels.bench.store import Row, Run, Writer
from cnnkernels.cli.report import report as command

HOSTILE = '</script><img src=x onerror="alert(1)">&"\'<!--'


def write(store: Path, run: Run, *rows: Row) -> Path:
    with Writer(store, run) as writer:
        for row in rows:
            writer.add(row)
        return writer.path


def test_published_suite_is_the_list_whatever_was_run(tmp_path: Path) -> None:
    suite = suites.load("lenet5")
    convolutions = [entry for entry in suite.entries if not entry.problem.is_pooling]
    entry = convolutions[0]
    common: dict[str, Any] = {"suite": "lenet5", "net": "lenet5", "layer": entry.layer, "problem": entry.problem}
    sweep = common | {"problem": entry.problem.with_batch(entry.problem.N * 2)}
    rows = [make_row(provider, 1.0, **kind) for provider in ("cuda", "torch-eager") for kind in (common, sweep)]
    write(tmp_path, make_run(), *rows)
    (device,) = views.report(tmp_path).devices
    (sheet,) = device.sheets
    (found,) = sheet.lists
    assert found.published
    everything = found.summaries[0].geomeans[-1]
    assert (everything.measured, everything.wanted, everything.speedup) == (1, len(convolutions), None)
    assert len(sheet.cases) == 1
    (swept,) = device.sweeps
    assert [case.batch for case in swept.cases] == [entry.problem.N, entry.problem.N * 2]


def test_newest_row_counts_and_another_run_is_said(tmp_path: Path) -> None:
    write(tmp_path, make_run(1), *rows_of(a=(10.0, 40.0)))
    write(tmp_path, make_run(2, "b" * 40), make_row("cuda", 20.0))
    (device,) = views.report(tmp_path).devices
    (case,) = device.cases
    assert case.speedup == pytest.approx(2.0)
    assert case.notices == ("measured in another run than the baseline: bbbbbbbbb, aaaaaaaaa",)


def test_history_is_over_what_every_version_has(tmp_path: Path) -> None:
    write(tmp_path, make_run(1), make_row(us=10.0), make_row(us=10.0, layer="b"), make_row(us=7.0, layer="only here"))
    write(tmp_path, make_run(2, "b" * 40), make_row(us=5.0))
    write(tmp_path, make_run(3, "b" * 40), make_row(us=20.0, layer="b"), make_row("torch-eager", 1.0))
    (device,) = views.report(tmp_path).devices
    assert device.history.versions == ("a" * 9, "b" * 9)
    assert device.history.common == {"fprop": 2}
    assert [point.relative_time for point in device.history.points] == pytest.approx([1.0, (0.5 * 2) ** 0.5])


def test_without_a_row_of_ours_there_is_no_history(tmp_path: Path) -> None:
    write(tmp_path, make_run(), make_row("torch-eager", 1.0))
    assert views.report(tmp_path).devices[0].history.points == ()


def test_counts_tell_what_became_of_ours(tmp_path: Path) -> None:
    unsupported = make_row("triton", None, layer="b", status="unsupported", reason="no")
    rows = [*rows_of(a=(1.0, 2.0), b=(None, 2.0)), unsupported, make_row("torch-eager", 2.0, layer="c")]
    write(tmp_path, make_run(), *rows)
    (device,) = views.report(tmp_path).devices
    assert device.counts == {"measured": 1, "refused": 1, "not run": 1}
    assert {(row.provider, row.status) for row in device.without_number} == {
        ("cuda", "refused"),
        ("triton", "unsupported"),
    }


def test_gpus_come_first_and_one_can_be_chosen(tmp_path: Path) -> None:
    write(tmp_path, make_run(1, gpu=False), make_row("emulator"))
    write(tmp_path, make_run(2), make_row())
    assert [device.slug for device in views.report(tmp_path).devices] == ["made-up-gpu", "made-up-cpu"]
    assert [device.slug for device in views.report(tmp_path, "made-up-cpu").devices] == ["made-up-cpu"]


class Page(HTMLParser):
    """Its text by element, attributes, and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self.rows: list[str] = []
        self._within = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._within = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif not self._within:
            self.text += data
            if self.rows:
                self.rows[-1] += f" {data.strip()}"


def make_page(store: Path) -> tuple[str, Page]:
    report = views.report(store)
    html = page.render(report, {device.slug: charts.charts(device) for device in report.devices}, str(store))
    return html, Page(html)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A GPU with something in every section, and a CPU; one line of it is damaged."""
    results = tmp_path / "results"
    pool = Layer("max_pool2d", 2, 8, 6, 6, R=2, S=2, stride=(2, 2))
    big = Layer("conv2d", 4, 8, 6, 6, 8, 3, 3, padding=(1, 1))
    model: dict[str, Any] = {
        "metric": "model",
        "layer": "",
        "name": "training",
        "family": "model",
        "cache": "",
        "layout": "",
    }
    rows = [
        *rows_of(winner=(10.0, 25.0), loser=(40.0, 10.0), wrong=(None, 5.0)),
        make_row("cuda", 12.0, "winner", layout="channels_last", kernels=("some_kernel",), error=1e-4, allowed=4e-4),
        make_row("torch-compile", None, "winner"),
        make_row("cuda", 15.0, "winner", problem=big),
        make_row("torch-eager", 30.0, "winner", problem=big),
        make_row("cuda", 3.0, "pool", problem=pool),
        make_row("torch-eager", 4.0, "pool", problem=pool),
        make_row("cuda", 21.0, "winner", metric="latency", cache="hot", host_us=9.5),
        make_row("torch-eager", 15.0, "winner", metric="latency", cache="hot", host_us=4.5),
        make_row("cuda", 5000.0, **model),
        make_row("torch-eager", 6000.0, **model),
    ]
    write(results, make_run(1), *rows)
    path = write(results, make_run(2, "b" * 40), make_row("cuda", 9.0, "winner"))
    with path.open("a") as file:
        file.write('{"kind": "row", "metric"\n')
    write(results, make_run(3, gpu=False), make_row("emulator", 1e5), make_row("torch-eager", 100.0))
    return results


def test_page_loads_nothing_and_has_one_bundle(store: Path) -> None:
    html, parsed = make_page(store)
    loading = [
        (tag, name, value)
        for tag, name, value in parsed.attributes
        if name in ("src", "href", "srcset", "data", "action")
    ]
    assert all(value.startswith("#") for _, _, value in loading), loading
    assert not {"link", "img", "iframe", "object", "base"} & set(parsed.tags)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "default-src 'none'" in html
    bundles = [text for _, text in parsed.scripts if "window.vegaEmbed" in text]
    assert len(bundles) == 1
    assert len(bundles[0]) > 500_000
    assert len(parsed.scripts) == 3


def test_tables_have_the_rows(store: Path) -> None:
    _, parsed = make_page(store)

    def row(*parts: str) -> str:
        found = [row for row in parsed.rows if all(part in row for part in parts)]
        assert len(found) == 1, found
        return found[0]

    batch = "conv2d n2 "
    assert "2.78×" in row("winner", batch, "fprop", "9.0", "25.0", "dense")
    assert "0.25×" in row("loser", "fprop", "40.0", "10.0")
    assert "without torch-compile (nchw), refused: wrong at [0, 0]" in row("winner", batch, "dense")
    assert "cuda (nchw) is refused: wrong at [0, 0]" in row("net wrong", "fprop", "dense")
    assert "1.33×" in row("pool", "forward", "max_pool2d")
    assert "0.71×" in row("winner", " 9.5 ", " 21.0 ", " 4.5 ", " 15.0 ")
    assert "1.20×" in row("training", "5.00", "6.00")
    assert "not given" in row("dense", "1 of 3 slower", "3 of 4 measured")
    (data,) = (json.loads(text) for attributes, text in parsed.scripts if attributes.get("id") == "page-data")
    unfolded = json.dumps(data["details"]["made-up-gpu time"])
    assert "some_kernel" in unfolded
    assert "1.0e-04 / 4.0e-04" in unfolded
    assert set(data["charts"]) == {value for _, name, value in parsed.attributes if name == "data-chart"}


def test_sections_say_what_they_are(store: Path) -> None:
    _, parsed = make_page(store)
    for heading in (
        "Speedup by family",
        "Whole models",
        "Rooflines",
        "Time against batch size",
        "History",
        "One eager call",
    ):
        assert heading in parsed.text
    assert parsed.text.count("These are not GPU times.") == 1
    assert "Lines that could not be read" in parsed.text
    assert ".jsonl:3: " in parsed.text


def test_a_cpu_is_checked_and_not_compared(tmp_path: Path) -> None:
    """Off a GPU the page tells who passed the gate. Ratios of an emulator's time are folded away and in no other table."""
    rows = [
        make_row("emulator", 1e5, error=3e-4, allowed=4e-4),
        make_row("emulator", None, layout="channels_last"),
        make_row("torch-eager", 100.0),
    ]
    write(tmp_path, make_run(1, gpu=False), *rows)
    html, parsed = make_page(tmp_path)
    assert "Checked by family" in parsed.text and "Speedup by family" not in parsed.text
    (check,) = [row for row in parsed.rows if "of what is allowed" in row]
    assert "dense" in check and "1 of 2" in check and "75% of what is allowed" in check
    folded = html[html.index("The emulator's time against torch's CPU operators") : html.index("Every layer")]
    assert (
        "says nothing about a GPU" in folded and "0.001" in folded and "×" in folded and folded.count("</details>") == 2
    )
    assert "×" not in html[html.index("<h3>Every layer") : html.index("How it was measured")]
    assert "slower" not in html[html.index("<h3>Every layer") : html.index("How it was measured")]
    assert "Rooflines" not in parsed.text, "no ceilings were measured"


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_draws_it_without_a_word_and_without_scrolling_sideways(
    store: Path, tmp_path: Path, width: int
) -> None:
    """The page in a frame of a screen's or a phone's width; a probe around it writes down what came of it."""
    html, _ = make_page(store)
    (tmp_path / "report.html").write_text(html)
    (tmp_path / "probe.html").write_text(
        f"<iframe id=f src=report.html style='width:{width}px;height:900px;border:0'></iframe><pre id=o></pre><script>"
        "addEventListener('load', () => setTimeout(() => { const d = f.contentDocument;"
        "o.textContent = JSON.stringify({wide: d.documentElement.scrollWidth, drawn: d.querySelectorAll('[data-chart] svg').length,"
        "visible: [...d.querySelectorAll('[data-chart]')].filter((place) => place.clientWidth > 0).length}); }, 3000));</script>"
    )
    assert CHROMIUM is not None
    command_line = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=9000", "--window-size=1400,1000", "--dump-dom",
        (tmp_path / "probe.html").as_uri(),
    ]  # fmt: skip
    outcome = subprocess.run(command_line, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="o">(\{.*?\})</pre>', outcome.stdout)
    assert found, outcome.stdout[-500:] + outcome.stderr[-2000:]
    seen = json.loads(found[1])
    assert seen["wide"] <= width, "tables scroll in their own box, the page does not"
    assert seen["visible"] > 3 and seen["drawn"] == seen["visible"], "every chart of the device in view"
    assert ":CONSOLE" not in outcome.stderr, outcome.stderr


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile: dict[str, Any] = {
        "net": HOSTILE,
        "what": HOSTILE,
        "suite": HOSTILE,
        "notices": (HOSTILE,),
        "family": HOSTILE,
    }
    rows = [make_row(provider, 1.0, HOSTILE, **hostile) for provider in ("cuda", "torch-eager")]
    rows.append(make_row("torch-compile", None, HOSTILE, reason=HOSTILE, **hostile))
    run = make_run(command=HOSTILE, versions={HOSTILE: HOSTILE})
    write(tmp_path, replace(run, device=run.device | {"name": HOSTILE}), *rows)
    html, parsed = make_page(tmp_path)
    assert parsed.tags["img"] == 0
    assert len(parsed.scripts) == 3
    assert HOSTILE in parsed.text
    (data,) = (text for attributes, text in parsed.scripts if attributes.get("id") == "page-data")
    assert "<" not in data
    assert json.loads(data)["details"]["made-up-gpu time"][0][0][0] in ("cuda", "torch-eager")
    assert html.count("</script>") == 3


def test_empty_store_says_how_to_measure(tmp_path: Path) -> None:
    html, parsed = make_page(tmp_path / "nowhere")
    assert "No result is stored yet" in parsed.text
    assert "cnnkernels bench" in parsed.text
    assert len(html) < 100_000, "a page without charts needs no chart library"


def test_unreadable_file_is_listed_and_the_rest_counts(store: Path) -> None:
    (store / "made-up-gpu" / "broken.jsonl").write_text("not JSON\n")
    report = views.report(store)
    assert len(report.problems) == 2
    assert len(report.devices) == 2


def test_page_is_the_same_for_the_same_store(store: Path) -> None:
    assert make_page(store)[0] == make_page(store)[0]


def test_pictures_are_pngs(store: Path) -> None:
    device = views.report(store).devices[0]
    sections = charts.charts(device)
    assert all(sections.values()), "the store has something for every section"
    names = [chart.name for group in sections.values() for chart in group]
    assert len(names) == len(set(names))
    png = vega.to_png(sections["speedups"][0], charts.origin(device), scale=1)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    assert 700 < width < 1000
    assert 80 < height < 1000


def test_nothing_measured_draws_nothing(tmp_path: Path) -> None:
    write(tmp_path, make_run(), make_row("cuda", None), make_row("torch-eager", None))
    (device,) = views.report(tmp_path).devices
    assert not any(charts.charts(device).values())
    assert "no reason given" not in make_page(tmp_path)[1].text


@pytest.mark.parametrize("speedup", [1e-6, 1.0, 1e6])
def test_axes_hold_any_speedup(tmp_path: Path, speedup: float) -> None:
    write(tmp_path, make_run(), *rows_of(a=(1.0, speedup)))
    (device,) = views.report(tmp_path).devices
    (chart,) = charts.charts(device)["speedups"]
    (x,) = {json.dumps(layer["encoding"]["x"]) for layer in chart.spec["layer"][2:]}
    low, high = json.loads(x)["scale"]["domain"]
    assert low < min(0.5, speedup) < max(2, speedup) < high
    assert 1.0 in json.loads(x)["axis"]["values"]
    assert len(json.loads(x)["axis"]["values"]) < 20


def test_speedups_with_few_digits_keep_them() -> None:
    assert [page.ratio(value) for value in (2.0, 0.8749, 0.0031, None)] == ["2.00×", "0.87×", "0.0031×", ""]


def make_readme(folder: Path, text: str) -> Path:
    path = folder / "README.md"
    path.write_text(text)
    return path


def test_readme_table_is_rewritten_once(store: Path, tmp_path: Path) -> None:
    path = make_readme(tmp_path, f"before\n{readme.BEGIN}\nstale\n{readme.END}\nafter\n")
    report = views.report(store)
    assert readme.rewrite(path, report)
    text = path.read_text()
    assert text.startswith(f"before\n{readme.BEGIN}\n**Made-up GPU**")
    assert text.endswith(f"{readme.END}\nafter\n")
    assert "stale" not in text
    assert "Made-up CPU" not in text
    assert "| pool |  | **1.33** (1.33) 0 of 1 |" in text
    assert re.search(r"\| dense \| \*\*–\*\* \(–\) 3 of 4 measured, 1 slower \|", text)
    assert "4 of these 4 comparisons lack a baseline that could have run" in text
    assert not readme.rewrite(path, report)
    assert path.read_text() == text


def test_readme_without_gpu_results_says_so(tmp_path: Path) -> None:
    write(tmp_path / "results", make_run(gpu=False), *rows_of(a=(1.0, 2.0)))
    path = make_readme(tmp_path, f"{readme.BEGIN}\n{readme.END}\n")
    readme.rewrite(path, views.report(tmp_path / "results"))
    assert path.read_text() == f"{readme.BEGIN}\n{readme.NOTHING}\n{readme.END}\n"


@pytest.mark.parametrize(
    "text",
    ["", readme.BEGIN, readme.END, f"{readme.BEGIN}{readme.BEGIN}{readme.END}", f"{readme.BEGIN}{readme.END}{readme.END}",
     f"{readme.END}{readme.BEGIN}"],
)  # fmt: skip
def test_readme_with_wrong_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    path = make_readme(tmp_path, text)
    with pytest.raises(ValueError, match="results:"):
        readme.rewrite(path, views.Report((), ()))
    assert path.read_text() == text


def test_our_readme_has_the_markers(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    readme.rewrite(make_readme(tmp_path, text), views.Report((), ()))


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_command_writes_page_and_pictures(store: Path, tmp_path: Path) -> None:
    path = make_readme(tmp_path, f"{readme.BEGIN}\n{readme.END}\n")
    output = run("--results", store, "--out", tmp_path / "out", "--readme", path, "--device", "made-up-gpu")
    assert "not read" in output
    assert "table rewritten" in output
    assert "Made-up GPU" in (tmp_path / "out" / "report.html").read_text()
    pictures = list((tmp_path / "out" / "made-up-gpu").glob("*.png"))
    assert len(pictures) >= 6
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_command_prints_views_as_json(store: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--results", str(store), "--json"], catch_exceptions=False)
    views_ = json.loads(result.stdout)
    assert [device["slug"] for device in views_["devices"]] == ["made-up-gpu", "made-up-cpu"]
    assert {case["speedup"] for case in views_["devices"][0]["cases"]} >= {0.25}


def test_command_refuses_an_unknown_device_and_a_readme_without_markers(store: Path, tmp_path: Path) -> None:
    assert "made-up-cpu, made-up-gpu" in run("--results", store, "--device", "h200", code=1)
    path = make_readme(tmp_path, "no markers")
    assert "results:begin" in run("--results", store, "--out", tmp_path / "out", "--readme", path, code=1)


def test_command_without_results_makes_a_page_that_says_so(tmp_path: Path) -> None:
    output = run("--results", tmp_path / "none", "--out", tmp_path / "out")
    assert "no result is stored" in " ".join(output.split())
    assert (tmp_path / "out" / "report.html").is_file()
