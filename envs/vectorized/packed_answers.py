"""The answers to steps as few arrays, which are sent in a fraction of the time of many."""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np

from pgtoolkit.envs.vectorized.causes import Failure
from pgtoolkit.envs.vectorized.play import Answer

Answers = list[tuple[int, Answer | Failure]]


@final
class PackedAnswers(NamedTuple):
    """Steps inside of episodes as arrays of one row each, and the others as they are."""

    indices: Sequence[int]
    observations: Any
    rewards: Sequence[Any]
    successes: Sequence[bool | None]
    others: Answers

    @classmethod
    def of(cls, answers: Answers) -> "PackedAnswers":
        """Packs the answers of environments; what they were is kept to the bit."""
        inside = [
            (i, answer)
            for i, answer in answers
            if not isinstance(answer, Failure) and answer[4] is None
        ]
        arrays = [answer[0] for _, answer in inside]
        kinds = {(x.dtype, x.shape) if type(x) is np.ndarray else None for x in arrays}
        if len(kinds) != 1 or None in kinds:
            return cls((), None, (), (), answers)
        packed = {i for i, _ in inside}
        return cls(
            [i for i, _ in inside],
            np.stack(arrays),
            [answer[1] for _, answer in inside],
            [answer[5] for _, answer in inside],
            [pair for pair in answers if pair[0] not in packed],
        )

    def unpacked(self) -> Answers:
        """The answers in the order of the environments."""
        rows = zip(self.indices, self.rewards, self.successes, strict=True)
        inside: Answers = [
            (i, (self.observations[k], reward, False, False, None, success))
            for k, (i, reward, success) in enumerate(rows)
        ]
        return sorted([*inside, *self.others], key=lambda pair: pair[0])
