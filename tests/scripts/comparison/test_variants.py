"""Agents with settings of their own, as text."""

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.comparison.variants import Variant, parse_variant, parse_variants


def test_an_agent_may_have_settings_of_every_kind() -> None:
    text = "ppo:clip_range=0.3,hidden=[32, 16],env_kwargs={g: 9.8, m: 2},normalize-rewards=false"
    assert parse_variant(text) == Variant(
        text,
        "ppo",
        {
            "clip_range": 0.3,
            "hidden": [32, 16],
            "env_kwargs": {"g": 9.8, "m": 2},
            "normalize_rewards": False,
        },
    )
    assert parse_variant("shac") == Variant("shac", "shac", {})


def test_common_settings_are_those_of_all_then_of_one_then_of_the_variant() -> None:
    texts = ["ppo", "ppo:gamma=0.5", "shac"]
    found = parse_variants(texts, ["ppo.gamma=0.9", "gamma=0.99", "n_steps=8"])
    assert [dict(variant.settings) for variant in found] == [
        {"gamma": 0.9, "n_steps": 8},
        {"gamma": 0.5, "n_steps": 8},
        {"gamma": 0.99, "n_steps": 8},
    ]


@pytest.mark.parametrize(
    ("texts", "assignments", "words"),
    [
        (["shc"], [], "did you mean `shac`"),
        (["ppo:gamma"], [], "is no setting"),
        (["ppo:"], [], "is no setting"),
        (["ppo:=1"], [], "is no setting"),
        (["ppo:hidden=[1"], [], "cannot be read"),
        (["ppo", "ppo"], [], "ppo twice"),
        (["ppo"], ["shac.gamma=0.9"], "shac, which --agents does not name"),
        (["ppo"], ["shc.gamma=0.9"], "did you mean `shac`"),
        (["ppo"], ["gamma"], "is no setting"),
    ],
)
def test_what_is_no_variant_is_refused(
    texts: list[str], assignments: list[str], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        parse_variants(texts, assignments)
