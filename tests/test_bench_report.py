"""The report: what rows say against each other, the views, the page, its pictures and the README's table."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("altair", reason="the report needs cnnkernels[report]")
pytest.importorskip("vl_convert", reason="the report needs cnnkernels[report]")

from cnnkernels.bench import compare, suites
from cnnkernels.bench.layer import Layer
from cnnkernels.bench.report import charts, page, readme, vega, views
from cnnkernels.bench.store import Results, Row, Run, Writer
from cnnkernels.cli.report import report as command

HOSTILE = '</script><img src=x onerror="alert(1)">&"\'<!--'


def make_run(number: int = 1, commit: str = "a" * 40, gpu: bool = True, **values: Any) -> Run:
    device = {"type": "cuda" if gpu else "cpu", "name": "Made-up GPU" if gpu else "Made-up CPU", "driver": "1.2"}
    device["slug"] = device["name"].lower().replace(" ", "-")
    fields: dict[str, Any] = {
        "id": f"2020010{number}T000000Z-00000{number}",
        "started": f"2020-01-0{number}T00:00:00+00:00",
        "device": device,
        "commit": commit,
        "dirty": False,
        "versions": {"torch": "2.99"},
        "library": "abcdef123456",
        "ceilings": {"bytes": 4e12, "f32": 6e13} if gpu else {},
        "limits": {"bytes": 5e12, "f32": 7e13} if gpu else {},
        "floor_us": 2.0,
        "settings": {"samples": 50},
        "command": "cnnkernels bench --suite own",
    }
    return Run(**(fields | values))


def make_row(provider: str = "cuda", us: float | None = 10.0, layer: str = "a", **values: Any) -> Row:
    problem = values.pop("problem", Layer("conv2d", 2, 8, 6, 6, 8, 3, 3, padding=(1, 1)))
    ours = provider in ("cuda", "triton", "emulator")
    fields: dict[str, Any] = {
        "metric": "time",
        "suite": "own",
        "net": "net",
        "layer": layer,
        "count": 1,
        "family": problem.family,
        "problem": problem.to_dict(),
        "what": str(problem),
        "name": "forward" if problem.is_pooling else "fprop",
        "dtype": "f32",
        "layout": "nchw",
        "data": "normal",
        "provider": provider,
        "role": "ours" if ours else "baseline",
        "status": "ok" if us is not None else "refused",
        "reason": "" if us is not None else "wrong at [0, 0]",
        "median_us": us,
        "p10_us": us and us * 0.9,
        "p90_us": us and us * 1.1,
        "samples": 50,
        "cache": "cold",
        "useful_flops": problem.useful_flops("fprop"),
        "useful_bytes": problem.useful_bytes("forward" if problem.is_pooling else "fprop", 4),
    }
    return Row(**(fields | values))


def write(store: Path, run: Run, *rows: Row) -> Path:
    with Writer(store, run) as writer:
        for row in rows:
            writer.add(row)
        return writer.path


def one(*rows: Row) -> compare.Comparison:
    (comparison,) = compare.comparisons(rows)
    return comparison


# Comparisons


def test_strongest_baseline_is_taken_over_layouts_and_torch_in_ours() -> None:
    found = one(
        make_row("cuda", 10.0),
        make_row("torch-eager", 30.0),
        make_row("torch-eager", 8.0, layout="channels_last"),
        make_row("torch-compile", 20.0),
        make_row("probe", 1.0, role="context"),
        make_row("linear", 0.5, layer="another"),
    )
    assert found.strongest is not None
    assert (found.strongest.provider, found.strongest.layout) == ("torch-eager", "channels_last")
    assert found.speedup == pytest.approx(0.8)
    assert found.to_torch == pytest.approx(3.0)
    assert (found.reason, found.weakened) == ("", "")


def test_refused_baseline_is_visible_and_unsupported_is_not_missed() -> None:
    found = one(
        make_row("cuda", 10.0),
        make_row("torch-eager", 30.0),
        make_row("torch-compile", None),
        make_row("linear", None, status="unsupported", reason="only 1x1"),
    )
    assert found.speedup == pytest.approx(3.0)
    assert found.weakened == "without torch-compile (nchw), refused: wrong at [0, 0]"


@pytest.mark.parametrize("status", ["refused", "failed", "unsteady", "skipped"])
def test_row_without_a_number_never_competes(status: str) -> None:
    """A time that does not count may well be in the row."""
    baseline = make_row("torch-compile", 1.0, status=status, reason="so")
    assert one(make_row("cuda", 10.0), make_row("torch-eager", 30.0), baseline).speedup == pytest.approx(3.0)
    ours = replace(baseline, provider="cuda", role="ours")
    assert one(ours, make_row("torch-eager", 30.0)).speedup is None


def test_reason_says_why_there_is_no_ratio() -> None:
    assert one(make_row("cuda", None), make_row("torch-eager", 3.0)).reason == "cuda (nchw) is refused: wrong at [0, 0]"
    assert one(make_row("cuda")).reason == "no baseline was measured"
    alone = one(make_row("cuda"), make_row("torch-eager", None))
    assert alone.reason == "no baseline has a number: torch-eager (nchw) refused"
    assert alone.speedup is None


def test_last_of_equal_identities_counts() -> None:
    assert one(make_row("cuda", 10.0), make_row("torch-eager", 5.0), make_row("cuda", 20.0)).speedup == 0.25


def rows_of(**times: tuple[float | None, float | None]) -> list[Row]:
    """Layers by name: our time and torch's."""
    pairs = [
        (make_row("cuda", ours, name), make_row("torch-eager", theirs, name)) for name, (ours, theirs) in times.items()
    ]
    return [row for pair in pairs for row in pair]


def test_geomeans_by_hand() -> None:
    rows = rows_of(a=(10.0, 40.0), b=(10.0, 10.0), c=(20.0, 10.0))
    pool = Layer("max_pool2d", 2, 8, 6, 6, R=2, S=2, stride=(2, 2))
    rows += [make_row("cuda", 1.0, problem=pool), make_row("torch-eager", 3.0, problem=pool)]
    dense, pooling, everything = compare.geomeans(compare.comparisons(rows), compare.cases(rows))
    assert (dense.group, pooling.group, everything.group) == ("dense", "pool", compare.ALL)
    assert dense.speedup == dense.to_torch == pytest.approx((4 * 1 * 0.5) ** (1 / 3))
    assert (dense.wanted, dense.measured, dense.wins, dense.losses) == (3, 3, 1, 1)
    assert everything.speedup == pytest.approx((4 * 1 * 0.5 * 3) ** (1 / 4))


def test_geomean_is_not_given_where_a_case_is_missing() -> None:
    rows = rows_of(a=(10.0, 40.0), b=(None, 10.0), c=(10.0, None))
    wanted = compare.cases([*rows, make_row(layer="never run")])
    (mean, _) = compare.geomeans(compare.comparisons(rows), wanted)
    assert mean.speedup is None
    assert mean.to_torch is None
    assert (mean.measured, mean.wanted, mean.wins) == (1, 4, 1)
    assert compare.geomeans([], {})[-1].speedup is None


def test_geomean_takes_our_fastest_row_and_counts_weak_opposition() -> None:
    rows = [*rows_of(a=(10.0, 20.0)), make_row("cuda", 5.0, layout="channels_last"), make_row("triton", None)]
    rows.append(make_row("torch-compile", None))
    (mean, _) = compare.geomeans(compare.comparisons(rows), compare.cases(rows))
    assert mean.speedup == pytest.approx(4.0)
    assert mean.to_torch is None, "torch was not measured in the layout of our fastest row"
    assert mean.weakened == 1


# Views


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


# The page


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


# The README


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
    assert "| forward, pool | 1.33 | 1.33 | 1 of 1 | 0 |" in text
    assert re.search(r"\| fprop, dense \| – \| – \| \d of \d \| 1 \|", text)
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


# The command


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


def test_results_type_is_what_history_takes(tmp_path: Path) -> None:
    from cnnkernels.bench.report.history import history

    entry = Results(tmp_path, make_run(), (make_row("torch-eager", 1.0),), ())
    assert history([entry]).points == ()
