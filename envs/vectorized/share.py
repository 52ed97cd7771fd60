"""The share of a vector environment's environments that this process of the run has."""

from collections.abc import Callable
from typing import Any, TypeVar, final

from pgtoolkit import parallel
from pgtoolkit.envs.vectorized.causes import Failure
from pgtoolkit.envs.vectorized.packed_answers import Answers, PackedAnswers
from pgtoolkit.envs.vectorized.play import Answer, EnvFacts, NewEpisode
from pgtoolkit.envs.vectorized.single import SingleEnv

T = TypeVar("T")


@final
class Share:
    """Consecutive environments for each process, as many for one as for another, or one more.

    What an environment does depends on its own index alone, so that the results are the same for
    any number of processes.

    Args:
        num_envs: ``N``, of all processes together.
        divided: whether the environments are divided over the processes; otherwise this one has
            all of them, as every other process has.
    """

    def __init__(self, num_envs: int, *, divided: bool) -> None:
        self.processes = parallel.size() if divided else 1
        self._owners = [i * self.processes // num_envs for i in range(num_envs)]
        self.own = [i for i, owner in enumerate(self._owners) if self._owns(owner)]

    def has(self, index: int) -> bool:
        """Whether this process has the environment."""
        return self._owns(self._owners[index])

    @property
    def sizes(self) -> list[int]:
        """The number of environments of each process."""
        return [self._owners.count(number) for number in range(self.processes)]

    def joined(self, own: list[T], purpose: str) -> list[T]:
        """What all processes found of their environments, in the order of the environments."""
        if self.processes == 1:
            return own
        return [found for part in parallel.exchange(own, purpose) for found in part]

    def joined_answers(self, own: Answers) -> Answers:
        """The answers to a step of all environments, in their order."""
        if self.processes == 1:
            return own
        parts = parallel.exchange(PackedAnswers.of(own), "step of the environments")
        return [answer for part in parts for answer in part.unpacked()]

    def made(self, make: Callable[[], SingleEnv]) -> list[SingleEnv]:
        """All environments; each process makes its own.

        Raises:
            RequestError: one cannot be made; in every process.
            RuntimeError: making one failed in another way.
        """
        own: dict[int, SingleEnv] = {}

        def facts() -> list[EnvFacts]:
            for i in self.own:  # workers start side by side, before the first is waited for
                own[i] = make()
            return [single.facts for single in own.values()]

        try:
            if self.processes == 1:
                facts()
                return list(own.values())
            every = [found for part in parallel.together(facts, "environments") for found in part]
        except BaseException:
            for single in own.values():
                single.close()
            raise
        return [SharedEnv(self, i, own.get(i), found) for i, found in enumerate(every)]

    def made_again(self, index: int, make: Callable[[], SingleEnv]) -> SingleEnv:
        """A new environment in the place of one that failed; its process makes it."""
        own: list[SingleEnv] = []

        def facts() -> EnvFacts:
            own.append(make())
            return own[0].facts

        found = self.from_owner(index, facts, "environment made again")
        if self.processes == 1:
            return own[0]
        return SharedEnv(self, index, own[0] if own else None, found)

    def from_owner(self, index: int, function: Callable[[], T], purpose: str) -> T:
        """What the function returns in the process that has the environment.

        Raises:
            Exception: what it raised there, in all processes.
        """
        if self.processes == 1:
            return function()
        return parallel.from_process(self._owners[index], function, purpose)

    def _owns(self, owner: int) -> bool:
        return self.processes == 1 or owner == parallel.rank()


@final
class SharedEnv:
    """An environment that one of the processes has, and all know the results of.

    All processes must call the methods in the same order, but for those that say otherwise.

    Args:
        share: knows who has it.
        index: its number among the environments.
        own: the environment, in the process that has it.
        facts: of the environment.
    """

    def __init__(self, share: Share, index: int, own: SingleEnv | None, facts: EnvFacts) -> None:
        self.own, self.facts = own, facts
        self._share, self._index = share, index

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> NewEpisode | Failure:
        return self._there(lambda own: own.reset(seed, options), "reset")

    def send_step(self, action: Any) -> None:
        """Only the process that has the environment calls this."""
        self.owned.send_step(action)

    def receive_step(self) -> Answer | Failure:
        """Only the process that has the environment calls this."""
        return self.owned.receive_step()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._there(lambda own: own.ask(function, *arguments), "question")

    def close(self, failure: Failure | None = None) -> None:
        """Each process may call this at any time."""
        if self.own is not None:
            self.own.close(failure)

    def _there(self, function: Callable[[SingleEnv], T], purpose: str) -> T:
        return self._share.from_owner(self._index, lambda: function(self.owned), purpose)

    @property
    def owned(self) -> SingleEnv:
        """The environment itself, in the process that has it."""
        assert self.own is not None, "another process has this environment"
        return self.own
