"""What a run says of the parts of its observation."""

from typing import Any

from gymnasium import spaces

from pgtoolkit.networks.parts import RowWithParts
from pgtoolkit.scripts.cli.observation_parts import parts_sentence

ROW = spaces.Box(-1, 1, (4,))


def test_the_parts_are_named_with_their_places_and_readers() -> None:
    own = spaces.Dict({"cell": spaces.Box(-1, 1, (2,)), "privileged": spaces.Box(-1, 1, (2,))})
    assert parts_sentence(own, ROW) == (
        "observation: 4 numbers, of 2 parts: cell 0 to 1, privileged 2 to 3 (value and Q functions "
        "read it, the policy does not)"
    )


def test_of_many_parts_those_for_some_networks_are_named() -> None:
    many: dict[str, spaces.Space[Any]] = {f"p{i}": spaces.Box(-1, 1, (1,)) for i in range(9)}
    assert parts_sentence(spaces.Dict(many), spaces.Box(-1, 1, (9,))) == (
        "observation: 9 numbers, of 9 parts"
    )
    masked = spaces.Dict(many | {"action_mask": spaces.MultiBinary(2)})
    said = parts_sentence(masked, spaces.Box(-1, 1, (11,)))
    assert said is not None and said.endswith(
        "10 parts: action_mask 0 to 1 (says which actions are allowed)"
    )


def test_a_row_without_parts_is_not_spoken_of() -> None:
    assert parts_sentence(None, ROW) is None
    assert parts_sentence(ROW, ROW) is None
    row = RowWithParts(ROW.low, ROW.high, privileged=(3, 4))
    said = parts_sentence(None, row)
    assert said is not None and "privileged 3 (value" in said
