"""The page of a report: what is in it, in which order, and that nothing of a run is markup."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pgtoolkit
from pgtoolkit.scripts.cli.experiment import default_settings
from pgtoolkit.scripts.comparison.scalars import Scalars
from pgtoolkit.scripts.reporting.charts import line_of, sections, styled
from pgtoolkit.scripts.reporting.page import page
from pgtoolkit.scripts.reporting.runs import Experiment, Run, different_settings, read_experiments

VOID = {"meta", "wbr"}
"""Elements without an end."""

EVIL = "<script>alert(1)</script>\"' onload=x \u202e &amp;"


class Elements(HTMLParser):
    """The elements of a page; every one that begins ends."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def scalars(shift: float = 0.0, **more: list[float]) -> Scalars:
    """Three evaluations, and other tags with ``__`` for a slash."""
    steps = [100, 200, 300]
    found: Scalars = {"eval/mean_reward": (steps, [shift, shift + 1, shift + 2])}
    return found | {tag.replace("__", "/"): (steps, values) for tag, values in more.items()}


def experiment(
    label: str = "shac",
    env: str = "E",
    count: int = 1,
    summary: dict[str, Any] | None = None,
    tags: Scalars | None = None,
    **settings: Any,
) -> Experiment:
    config = {"agent": "shac", "env": env, "seed": 0, "gamma": 0.98, **settings}
    config["versions"] = {"torch": "2.0"}
    found = [scalars(float(seed)) | (tags or {}) for seed in range(count)]
    runs = [Run(Path(f"runs/{label}{i}"), config, each, summary) for i, each in enumerate(found)]
    return Experiment(label, env, config, runs)


def evil() -> Iterator[Experiment]:
    """Runs of somebody else's, with markup wherever text may stand."""
    finding = {"since_step": EVIL, "sentence": EVIL, "kind": EVIL, "number": EVIL}
    summary = {"steps": EVIL, "gradient": EVIL, "diagnosis": [finding, EVIL, 3]}
    yield experiment(EVIL, EVIL, 1, summary, agent=EVIL, kind=[EVIL, {EVIL: EVIL}])
    odd: dict[Any, Any] = {1: 2, None: 3}
    yield Experiment("c", EVIL, odd, [Run(Path(EVIL), odd, {}, None)])
    odd_summary = {"diagnosis": EVIL, "gradient": [EVIL]}
    yield experiment("b", EVIL + "2", 2, odd_summary, seed=EVIL, estimator=EVIL)


def test_nothing_of_a_run_is_markup_and_nothing_is_loaded() -> None:
    found = Elements(page(list(evil())))
    assert "script" not in found.names
    assert not {"img", "link", "iframe", "object", "a", "use", "image"} & found.names
    names = {name for name, _ in found.attributes}
    assert not any(name.startswith("on") for name in names)
    assert not {"src", "href", "xlink:href", "style"} & names
    assert "<script>alert(1)</script>" in "".join(found.text), "it is shown as text"
    assert "\u202e" not in "".join(found.text), "text that turns the rest around is escaped"
    assert "url(" not in page(list(evil())) and "@import" not in page(list(evil()))


def test_the_page_names_its_parts_in_the_order_of_the_questions() -> None:
    tags = scalars(
        gradient__score_function__snr=[0.1, 0.2, 0.3],
        gradient__bias_z=[1.0, 2.0, 7.0],
        train__std=[1.0, 1.0, 0.9],
    )
    text = page([experiment(tags=tags)])
    heads = re.findall(r"<h[123]>([^<]+)</h[123]>", text)
    assert heads == [
        "shac on E",
        "Diagnosis",
        "Is it learning?",
        "Which gradient is better?",
        "Is it biased?",
        "What is wrong?",
        "Settings",
        "Versions and folders",
    ]
    assert "5: biased above" in text and "prefers-color-scheme: dark" in text
    Elements(text)


def test_a_question_without_measurements_has_no_heading() -> None:
    text = page([experiment()])
    assert "Is it learning?" in text and "Is it biased?" not in text


def test_the_diagnosis_is_there_in_full() -> None:
    finding = {"since_step": 2048, "sentence": "It is bad; try --num-envs 8."}
    summary = {"steps": 300, "gradient": "unreliable: pathwise is followed"}
    one = experiment("one", summary=summary | {"diagnosis": [finding]})
    other = experiment("other", summary={"steps": 300, "diagnosis": []})
    text = page([one, other])
    assert (
        "<li>Gradient: unreliable: pathwise is followed.</li>"
        "<li>It is bad; try <code>--num-envs</code> 8.</li>"
    ) in text
    assert "1 finding<" in text and "nothing to report" in text
    assert text.count("<li>Gradient: ") == 1, "a summary of an earlier version has none"
    assert "<li>Nothing to report.</li>" in text
    assert "not ended" in page([experiment()])


@pytest.mark.parametrize("words", ["did not improve", "rose little"])
def test_a_run_that_learned_little_is_called_so_in_its_row(words: str) -> None:
    told = f"no rule found a fault, but the evaluations {words} (from -72.7 to -76.2): train longer"
    summary = {"steps": 300, "diagnosis": [], "without_findings": told}
    text = page([experiment("one", summary=summary)])
    assert f'<td data-label="diagnosis">{words}</td>' in text


def test_long_names_may_be_broken_behind_a_comma() -> None:
    text = page([experiment("shac:gamma=0.9,n_steps=8 & <b>")])
    assert "<span>shac:<wbr>gamma=0.9,<wbr>n_steps=8 &amp; &lt;b&gt;</span>" in text
    Elements(text)


def test_every_question_has_the_names_and_colours_of_several_experiments() -> None:
    """A reader far down a long page need not scroll up to know a line."""
    names = [experiment("one"), experiment("other")]
    tags = scalars(train__std=[1.0, 1.0, 0.9])
    text = page([*names, experiment("third", tags=tags)])
    for question in ("Is it learning?", "What is wrong?"):
        section = text.split(f">{question}<")[1].split("<figure>")[0]
        assert re.findall(r'swatch (c\d)"></i><span>(\w+)<', section) == [
            ("c0", "one"),
            ("c1", "other"),
            ("c2", "third"),
        ]
    assert 'class="legend"' not in page([experiment("one")])


def test_an_experiment_has_one_colour_and_estimators_have_others() -> None:
    several = styled([experiment(str(i)) for i in range(9)])
    styles = [each.style for each in several]
    assert len(set(styles)) == 9 and styles[0] == "c0" and styles[7] == "c0 dashed"
    (alone,) = styled([experiment()])
    assert alone.style == "ink"
    tags = scalars(
        gradient__score_function__variance=[1.0, 2.0, 3.0],
        gradient__mixed__variance=[1.0, 1.0, 1.0],
    )
    (single,) = styled([experiment(tags=tags)])
    charts = {c.title: c for s in sections([single]) for c in s.charts}
    lines = charts["Variance of one trajectory's gradient"].lines
    assert [line.style for line in lines] == ["e-score_function", "e-mixed dashed"]
    both = styled([experiment("a", tags=tags), experiment("b")])
    charts = {c.title: c for s in sections(both) for c in s.charts}
    assert [line.style for line in charts["Variance, mixed"].lines] == ["c0"]


def test_several_seeds_are_their_interquartile_mean() -> None:
    """Returns 0, 1, 2 and so on of four seeds: the middle two have the mean 1.5."""
    found = line_of(experiment(count=4), "eval/mean_reward", "c0", "a", "linear")
    assert found is not None
    np.testing.assert_allclose(found.y, [1.5, 2.5, 3.5])
    assert (found.low <= found.y).all() and (found.y <= found.high).all()


def test_a_run_has_the_interval_that_it_measured() -> None:
    """On a logarithmic scale; an end that is not positive, or missing, is not known."""
    steps = [100, 200, 300]
    tags: Scalars = {
        "gradient/pathwise/variance": (steps, [1.0, 10.0, 100.0]),
        "gradient/pathwise/variance_low": ([100, 200], [0.1, -1.0]),
        "gradient/pathwise/variance_high": ([100, 300], [10.0, 1000.0]),
    }
    found = line_of(experiment(tags=tags), "gradient/pathwise/variance", "c0", "a", "log")
    assert found is not None
    np.testing.assert_allclose(found.y, [0, 1, 2])
    np.testing.assert_allclose(found.low, [-1, np.nan, np.nan])
    np.testing.assert_allclose(found.high, [1, np.nan, 3])


def test_a_tag_that_a_seed_lacks_is_not_drawn() -> None:
    found = experiment(count=2, tags=scalars(train__std=[1.0, 1.0, 1.0]))
    missing = Run(Path("x"), found.config, scalars(), None)
    both = Experiment("a", "E", found.config, [found.runs[0], missing])
    assert line_of(both, "train/std", "c0", "a", "linear") is None
    assert line_of(both, "nothing", "c0", "a", "linear") is None


def test_settings_that_differ_from_the_defaults_come_first() -> None:
    config = default_settings("shac") | {"gamma": 0.5, "n_steps": 8}
    one = Experiment("one", "E", {**config, "agent": "shac", "env": "E", "seed": 1}, [])
    two = Experiment("two", "E", {**one.config, "n_steps": 16}, [])
    names = different_settings([one, two])
    assert (set(names[:2]), names[2:]) == ({"agent", "env"}, ["n_steps", "gamma"])


@pytest.mark.parametrize("agent", ["no such agent", "shac"])
def test_marked_is_what_is_not_the_default(agent: str) -> None:
    """Where the agent is not known, nothing is marked."""
    text = page([experiment(gamma=0.5, agent=agent)])
    marked = re.findall(r'<td class="unusual">([^<]+)</td>', text)
    assert marked == (["0.5"] if agent == "shac" else [])


def test_what_auto_stands_for_is_not_marked(tmp_path: Path) -> None:
    """The run's folder has the resolved values, and says which of them were given as others."""
    small: dict[str, Any] = {"num_envs": 4, "n_steps": 4, "total_steps": 16, "eval_interval": 0}
    quiet: dict[str, Any] = {"quiet": True, "env": "pgtoolkit/Pendulum-v0"}
    cases: dict[str, dict[str, Any]] = {"auto": {}, "set": {"estimator": "pathwise"}}
    for name, settings in cases.items():
        pgtoolkit.train("shac", run_dir=tmp_path / name, **settings, **small, **quiet)
    auto, given = (read_experiments([str(tmp_path / name)])[0] for name in ("auto", "set"))
    assert auto.settings["estimator"] == given.settings["estimator"] == "pathwise"
    assert "estimator" not in different_settings([auto])
    assert "estimator" in different_settings([given])
    assert "pathwise (auto)" in page([auto]) and "pathwise (auto)" not in page([given])


def test_experiments_on_several_environments_have_charts_of_their_own() -> None:
    text = page([experiment("a", "Here"), experiment("b", "There")])
    assert re.findall(r"<h2>([^<]+)</h2>", text)[1:3] == ["Here", "There"]
    assert "a on Here" in text
    assert text.count("<svg") == 2


def test_a_variational_run_has_a_page_too() -> None:
    config = {"estimator": "pathwise", "family": "diagonal", "seed": 0}
    tags: Scalars = {"variational/elbo": ([1, 2], [-3.0, -2.0])}
    runs = [Run(Path("v"), config, tags, None)]
    text = page([Experiment("pathwise, diagonal covariance", "data", config, runs)])
    assert "Evidence lower bound" in text
    Elements(text)


def test_a_run_without_any_scalar_has_a_page() -> None:
    found = experiment()
    text = page([Experiment("a", "E", found.config, [Run(Path("a"), found.config, {}, None)])])
    assert "Settings" in text and "<svg" not in text
