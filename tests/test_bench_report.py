"""The report: the views, the page, its pictures, profiles and the README's table."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_bench_compare import make_row, make_run, rows_of
from test_profile_model import buffer, launch, site

pytest.importorskip("altair", reason="the report needs cnnkernels[report]")
pytest.importorskip("vl_convert", reason="the report needs cnnkernels[report]")

from cnnkernels.bench import suites
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.report import charts, page, profiles, readme, vega, views
from cnnkernels.bench.store import Row, Run, Writer
from cnnkernels.cli import main
from cnnkernels.cli.report import report as command
from cnnkernels.profile.launches import Launch
from cnnkernels.profile.passes import Useful
from cnnkernels.profile.report import PassReport, analyse, as_json
from cnnkernels.profile.resources import Resources

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


def make_page(store: Path, *profiled: Path) -> tuple[str, Page]:
    report = views.report(store, profiles=map(profiles.read, profiled))
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


def in_browser(folder: Path, html: str, width: int, script: str) -> dict[str, Any]:
    """What `script` makes of `d`, the page's document in a frame `width` pixels wide, once it is drawn."""
    (folder / "report.html").write_text(html)
    (folder / "probe.html").write_text(
        f"<iframe id=f src=report.html style='width:{width}px;height:900px;border:0'></iframe><pre id=o></pre><script>"
        "addEventListener('load', () => setTimeout(() => { const d = f.contentDocument;"
        f"o.textContent = JSON.stringify((() => {{ {script} }})()); }}, 3000));</script>"
    )
    assert CHROMIUM is not None
    command_line = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=9000", "--window-size=1400,1000", "--dump-dom",
        (folder / "probe.html").as_uri(),
    ]  # fmt: skip
    outcome = subprocess.run(command_line, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="o">(\{.*?\})</pre>', outcome.stdout)
    assert found, outcome.stdout[-500:] + outcome.stderr[-2000:]
    assert ":CONSOLE" not in outcome.stderr, outcome.stderr
    seen: dict[str, Any] = json.loads(found[1])
    return seen


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_draws_it_without_a_word_and_without_scrolling_sideways(
    store: Path, tmp_path: Path, width: int
) -> None:
    """The page in a frame of a screen's or a phone's width; a probe around it writes down what came of it."""
    script = (
        "return {wide: d.documentElement.scrollWidth, drawn: d.querySelectorAll('[data-chart] svg').length,"
        "visible: [...d.querySelectorAll('[data-chart]')].filter((place) => place.clientWidth > 0).length};"
    )
    seen = in_browser(tmp_path, make_page(store)[0], width, script)
    assert seen["wide"] <= width, "tables scroll in their own box, the page does not"
    assert seen["visible"] > 3 and seen["drawn"] == seen["visible"], "every chart of the device in view"


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


# --- Profiles.


def made_launch(**values: Any) -> Launch:
    """Reads x badly and w well, writes y; of two shared arrays one has bank conflicts."""
    written = {"read_bytes": 0, "read_sectors": 0, "block_read_bytes": 0, "block_read_sectors": 0}
    written |= {
        "written_bytes": 3200,
        "written_sectors": 100,
        "block_written_bytes": 3200,
        "block_written_sectors": 100,
    }
    return launch(
        buffers=[buffer(), buffer(name="w"), buffer(name="y", use="output", **written)],
        sites=[
            site(sectors=1000, least_sectors=100),
            site(buffer="w", offset=32, line=2, sectors=100, least_sectors=100),
            site(buffer="y", offset=48, line=3, access="store"),
            site(space="shared", buffer="tile", offset=64, sectors=0, wavefronts=400, least_wavefronts=100),
            site(space="shared", buffer="sums", offset=80, sectors=0, wavefronts=300, least_wavefronts=300),
        ],
        code=[],
        **values,
    )


def made_profile(
    folder: Path, *launches: Launch, spills: int = 0, compiled: bool = True
) -> tuple[Path, dict[str, Any]]:
    """The file of one pass, of which 4800 bytes are compulsory, and its content."""
    resources = {"_Z6gatherv": Resources(64, 0, 1, 0, spills, 2 * spills)} if compiled else {}
    analysed = analyse(launches or [made_launch()], resources, "" if compiled else "the compiler was not asked")
    problem = {"text": "conv2d as made up", "name": "net:layer"}
    report = PassReport("net:layer fprop f32 nchw", analysed, problem, Useful(1, 4800))
    content = json.loads(json.dumps(as_json("the subject", [report])))
    path = folder / "profile.json"
    path.write_text(json.dumps(content))
    return path, content


def test_a_launch_is_shown_with_its_counters(tmp_path: Path) -> None:
    path, content = made_profile(tmp_path)
    _, parsed = make_page(tmp_path / "nowhere", path)
    (row,) = [row for row in parsed.rows if "conv2d_gather" in row]
    cells = [cell for cell in row.split("  ") if cell]
    assert cells[:3] == ["net:layer fprop f32 nchw conv2d as made up", "conv2d_gather", "10 × 128"]
    seconds = content["passes"][0]["launches"][0]["model"]["seconds"]
    assert cells[3:5] == [f"{seconds * 1e6:.3g}", "L1 and shared mostly the launch"]
    assert cells[5:7] == ["9.4 KiB", "2.00×"], "300 sectors, twice what is compulsory"
    # Of all tensors and of all arrays by their sums: the means would be 55 % and 150 %.
    assert cells[7:10] == ["18.2%", "100%", "+75%"]
    assert cells[10:] == ["50% by registers", "64"]
    for name, numbers in {
        "x": "read  100  12.5 KiB  1,000  100  10%  6.2 KiB  3.1 KiB  3.1 KiB  2.00×  2.00×",
        "w": "read  100  12.5 KiB  100  100  100%  6.2 KiB  3.1 KiB  3.1 KiB  2.00×  2.00×",
        "y": "write  100  12.5 KiB  400  400  100%  3.1 KiB  3.1 KiB  3.1 KiB  4.00×  1.00×",
        "tile": "load  100  12.5 KiB  400  100  +300%",
        "sums": "load  100  12.5 KiB  300  300  0%",
        "DRAM": "9.4 KiB",
        "gather.cuh:1": "",
    }.items():
        found = [" ".join(row.split()) for row in parsed.rows if row.split()[:1] == [name]]
        assert len(found) == 1, (name, found)
        assert found[0].startswith(" ".join(f"{name} {numbers}".split()))


def test_the_times_are_called_what_they_are(tmp_path: Path) -> None:
    """In the words of the file."""
    path, content = made_profile(tmp_path)
    _, parsed = make_page(tmp_path / "nowhere", path)
    assert "The times are a model's prediction, not a measurement:" in parsed.text
    assert "the counts are exact" in parsed.text
    path.write_text(json.dumps(content | {"notice": "somebody's guess"}))
    assert "The times are somebody's guess:" in make_page(tmp_path / "nowhere", path)[1].text


def test_what_is_not_known_of_a_launch_is_said(tmp_path: Path) -> None:
    path, _ = made_profile(tmp_path, made_launch(blocks=40), compiled=False)
    _, parsed = make_page(tmp_path / "nowhere", path)
    (row,) = [row for row in parsed.rows if "conv2d_gather" in row]
    assert "40 × 128 sampled: 10 run" in row
    assert "≤ 100%" in row and row.split()[-1] == "unknown"
    assert "Registers unknown: the compiler was not asked" in parsed.text
    assert "~ 3.1 KiB" in parsed.text
    assert "counts are multiplied up" in parsed.text


def test_spills_and_the_launches_of_a_pass_are_told(tmp_path: Path) -> None:
    path, _ = made_profile(tmp_path, made_launch(), made_launch(kernel="conv2d_sum"), spills=8)
    _, parsed = make_page(tmp_path / "nowhere", path)
    first, second = [row for row in parsed.rows if "net:layer fprop" in row]
    assert "launch 1 of 2" in first and "conv2d_sum launch 2 of 2" in second
    for row in (first, second):
        assert "9.4 KiB  4.00× both launches" in row, "it is the pass of which bytes are compulsory"
        assert row.rstrip().endswith("64 spills 8 B, reloads 16 B")


def test_trials_and_passes_without_a_launch(tmp_path: Path) -> None:
    trials = [PassReport("a.cu:good", analyse([made_launch()], {}, "no")), PassReport("a.cu:bad", (), error="it threw")]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(as_json("a.cu", [*trials, PassReport("a.cu:idle", ())])))
    _, parsed = make_page(tmp_path / "nowhere", path)
    (row,) = [row for row in parsed.rows if "a.cu:good" in row]
    assert "9.4 KiB   18.2%" in row, "nothing is compulsory"
    assert "a.cu:bad: it threw" in parsed.text
    assert "a.cu:idle: no kernel was launched" in parsed.text


def test_profiles_stand_beside_results_and_without_any(store: Path, tmp_path: Path) -> None:
    path, _ = made_profile(tmp_path)
    _, parsed = make_page(store, path)
    (section,) = [value for _, name, value in parsed.attributes if name == "id" and "kernels" in value]
    links = [value for tag, name, value in parsed.attributes if (tag, name) == ("a", "href")]
    assert links == ["#made-up-gpu", "#made-up-cpu", f"#{section}"]
    assert "Speedup by family" in parsed.text and "bank conflicts" in parsed.text and "launch floor" in parsed.text
    html, alone = make_page(tmp_path / "nowhere", path)
    assert "No result is stored yet" in alone.text and "bank conflicts" in alone.text
    assert "the unit in which caches" in alone.text and "launch floor" not in alone.text, (
        "the glossary is of what is here"
    )
    assert len(html) < 100_000
    _, without = make_page(store)
    assert "What the kernels do" not in without.text and "bank conflicts" not in without.text


def test_several_profiles_are_told_apart_by_their_files(tmp_path: Path) -> None:
    before, _ = made_profile(tmp_path)
    after = before.rename(tmp_path / "after.json")
    before, _ = made_profile(tmp_path)
    _, parsed = make_page(tmp_path / "nowhere", before, after)
    rows = [row for row in parsed.rows if "conv2d_gather" in row]
    for row, file in zip(rows, (before, after), strict=True):
        assert f"fprop f32 nchw {file}: conv2d as made up  " in row


def every_text(value: Any, new: str) -> Any:
    """`value` with every text in it replaced."""
    if isinstance(value, dict):
        return {name: every_text(one, new) for name, one in value.items()}
    if isinstance(value, list):
        return [every_text(one, new) for one in value]
    return new if isinstance(value, str) else value


@pytest.mark.parametrize("compiled", [True, False])
def test_hostile_profiles_stay_text(tmp_path: Path, compiled: bool) -> None:
    _, content = made_profile(tmp_path, compiled=compiled)
    content["passes"].append(content["passes"][0] | {"error": HOSTILE, "launches": []})
    path = tmp_path / "<img src=x onerror=alert(1)>.json"
    path.write_text(json.dumps(every_text(content, HOSTILE)))
    html, parsed = make_page(tmp_path / "nowhere", path, path)
    assert parsed.tags["img"] == 0
    assert len(parsed.scripts) == html.count("</script>") == 2
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    assert parsed.text.count(HOSTILE) > 20
    assert str(path) in parsed.text


def test_a_text_that_no_page_can_hold_is_written_out(tmp_path: Path) -> None:
    path, content = made_profile(tmp_path)
    path.write_text(json.dumps(every_text(content, "half \ud800 a character")))
    run("--results", tmp_path / "none", "--out", tmp_path / "out", "--profile", path)
    assert "half \\ud800 a character" in (tmp_path / "out" / "report.html").read_text()


def changed(**values: Any) -> Callable[[dict[str, Any]], bytes]:
    """A file in which the first tensor of the first launch has `values`."""

    def change(content: dict[str, Any]) -> bytes:
        content["passes"][0]["launches"][0]["tensors"][0] |= values
        return json.dumps(content).encode()

    return change


TENSOR = r"passes[0].launches[0].tensors[0]"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: b"", "it is no JSON: Expecting value: line 1 column 1"),
        (lambda _: b"net:layer fprop f32 nchw\nconv2d_gather", "it is no JSON: Expecting value"),
        (lambda _: b"\xff\xfe\xfd", "it is no text"),
        (lambda _: b"[" * 100_000, "it is nested too deeply"),
        (lambda _: b"[1]", "it is a list, not an object"),
        (lambda _: b"null", "it is null, not an object"),
        (lambda _: b'{"kind": "run", "format": 1}', "it lacks subject, notice, passes"),
        (lambda content: json.dumps(content | {"passes": {}}).encode(), "passes is an object, not a list"),
        (changed(sectors="many"), f'{TENSOR}.sectors is "many", not a whole number'),
        (changed(sectors=1.5), f"{TENSOR}.sectors is 1.5, not a whole number"),
        (changed(sectors=True), f"{TENSOR}.sectors is true, not a whole number"),
        (changed(sectors=10**400), f"{TENSOR}.sectors is 1000000"),
        (changed(exact=1), f"{TENSOR}.exact is 1, not true or false"),
        (changed(coalescing=float("nan")), f"{TENSOR}.coalescing is NaN, not a number"),
        (changed(coalescing=[]), f"{TENSOR}.coalescing is a list, not a number"),
        (changed(buffer=None), f"{TENSOR}.buffer is null, not a text"),
    ],
)
def test_what_is_no_profile_is_refused_before_anything_is_written(
    store: Path, tmp_path: Path, make: Callable[[dict[str, Any]], bytes], message: str
) -> None:
    good, content = made_profile(tmp_path)
    wrong = tmp_path / "wrong.json"
    wrong.write_bytes(make(content))
    output = run("--results", store, "--out", tmp_path / "out", "--profile", good, "--profile", wrong, code=1)
    assert output.startswith(f"Error: {wrong} is not what `cnnkernels profile --json` prints: ")
    assert message in output
    assert len(output) < len(str(wrong)) + 250
    assert not (tmp_path / "out").exists()


def test_a_profile_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        output = run("--results", tmp_path, "--out", tmp_path / "out", "--profile", path, code=2)
        assert "--profile" in output and str(path) in output
    with pytest.raises(ValueError, match=r"missing.json cannot be read: No such file"):
        profiles.read(tmp_path / "missing.json")


def test_profiles_are_in_the_json(tmp_path: Path) -> None:
    path, content = made_profile(tmp_path)
    (printed,) = json.loads(run("--results", tmp_path / "none", "--profile", path, "--json"))["profiles"]
    assert (printed["file"], printed["subject"], printed["notice"]) == (str(path), "the subject", content["notice"])
    (one,) = printed["passes"][0]["launches"]
    assert one["coalescing"] == {"read": 200 / 1100, "write": 1.0}
    assert one["conflicts"] == 0.75
    assert {name: one["tensors"][0][name] for name in ("buffer", "sectors")} == {"buffer": "x", "sectors": 1000}


@pytest.mark.checked_emulator
def test_a_real_profile_is_shown(tmp_path: Path) -> None:
    """Two launches: the totals are the sums over tensors, and the page has them."""
    printed = CliRunner().invoke(main, ["profile", "n1 c3 42x42 k6 3x3", "--pass", "wgrad", "--json"]).stdout
    path = tmp_path / "profile.json"
    path.write_text(printed)
    (one,) = json.loads(printed)["passes"]
    _, parsed = make_page(tmp_path / "nowhere", path)
    rows = [row for row in parsed.rows if "wgrad f32 nchw" in row]
    assert len(rows) == len(one["launches"]) == 2
    assert sum(launched["dram_bytes"] for launched in one["launches"]) == one["dram_bytes"]
    assert one["dram_over_compulsory"] == one["dram_bytes"] / one["useful"]["bytes"] > 1
    for row, launched in zip(rows, one["launches"], strict=True):
        reads = [tensor for tensor in launched["tensors"] if tensor["access"] == "read"]
        least, touched = (sum(tensor[name] for tensor in reads) for name in ("least_sectors", "sectors"))
        assert launched["coalescing"]["read"] == least / touched
        shown = (
            launched["kernel"], f"{launched['blocks']} × {launched['block'][0]}", page.size(launched["dram_bytes"]),
            page.share(least / touched), page.ratio(one["dram_over_compulsory"]), page.share(launched["occupancy"]["fraction"]),
        )  # fmt: skip
        assert all(part in row for part in shown), (shown, row)
        for line in launched["lines"][:8]:
            assert line["text"] in parsed.text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")
@pytest.mark.parametrize("width", [1280, 360])
def test_launches_unfold_sort_and_are_found(store: Path, tmp_path: Path, width: int) -> None:
    path, _ = made_profile(tmp_path, made_launch(), made_launch(kernel="conv2d_sum", blocks=5, blocks_run=5))
    script = """
      const section = d.getElementById("what_the_kernels_do"), table = section.querySelector("table.cases");
      const kernels = () => [...table.tBodies].filter((body) => !body.hidden).map((body) => body.rows[0].cells[1].firstChild.textContent);
      const inside = () => [...table.tBodies].filter((body) => body.rows[1].clientHeight > 0).length;
      const shown = () => [...d.querySelectorAll("[data-device]")].filter((one) => !one.hidden).map((one) => one.id);
      const search = section.querySelector("[data-search]"), heading = table.tHead.rows[0].cells[2].querySelector("button");
      const find = (text) => { search.value = text; search.dispatchEvent(new Event("input")); };
      const seen = {first: shown()};
      d.defaultView.location.hash = section.id;
      d.defaultView.dispatchEvent(new Event("hashchange"));
      seen.chosen = shown();
      seen.folded = inside();
      table.querySelector(".unfold").click();
      seen.unfolded = inside();
      const tables = table.querySelector(".tables").getBoundingClientRect();
      seen.right = tables.right;
      seen.wide = d.documentElement.scrollWidth;
      table.querySelector(".unfold").click();
      seen.again = inside();
      seen.before = kernels();
      heading.click();
      seen.sorted = kernels();
      find("CONV2D_SUM gather.cuh");
      seen.found = kernels();
      seen.count = section.querySelector("[data-count]").textContent;
      return seen;
    """
    seen = in_browser(tmp_path, make_page(store, path)[0], width, script)
    assert (seen["first"], seen["chosen"]) == (["made-up-gpu"], ["what_the_kernels_do"])
    assert (seen["folded"], seen["unfolded"], seen["again"]) == (0, 1, 0)
    assert seen["right"] <= width >= seen["wide"]
    assert (seen["before"], seen["sorted"]) == (["conv2d_gather", "conv2d_sum"], ["conv2d_sum", "conv2d_gather"])
    assert (seen["found"], seen["count"]) == (["conv2d_sum"], "1 of 2")
