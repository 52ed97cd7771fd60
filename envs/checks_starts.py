"""Checks of how a differentiable environment starts and restarts episodes."""

from collections.abc import Iterator

import torch

from pgtoolkit.envs.checks_play import AnyDifferentiable, Points, copy, fresh, take
from pgtoolkit.envs.checks_purity import EXPLICIT, copied, named_calls, same, varies
from pgtoolkit.envs.checks_randomness import changes_with, touched_by
from pgtoolkit.envs.finding import Finding, fault, passed, warned
from pgtoolkit.envs.states import State


def check_seeding(env: AnyDifferentiable, starts: State, seed: int) -> Iterator[Finding]:
    """``initial`` draws from its generator, and from nothing else."""

    def start(seed: int) -> State:
        return fresh(env, 8, torch.Generator().manual_seed(seed))

    libraries = changes_with(lambda: start(seed), same)
    touched = touched_by(lambda: start(seed))
    once, again, other = start(seed), start(seed), start(seed + 1)
    if libraries or touched:
        text = f"initial draws from, or seeds, {named_calls(libraries or touched)}"
        yield fault("behaviour", "seeding", f"global randomness: {text}", UNSEEDED, EXPLICIT)
    elif not same(once, again):
        text = "the same seed gives different starts: initial has randomness of its own"
        yield fault("behaviour", "seeding", text, UNSEEDED, EXPLICIT)
    elif same(once, other) and varies(starts):
        text = "the seed is ignored: two seeds give the same starts"
        yield fault("behaviour", "seeding", text, UNSEEDED, EXPLICIT)
    elif not varies(starts):
        yield passed("behaviour", "seeding", "every episode starts in the same state")
    else:
        yield passed("behaviour", "seeding", "same seed, same starts; another seed, others")


def check_restart(env: AnyDifferentiable, points: Points, seed: int) -> Iterator[Finding]:
    """``restart`` leaves the other rows alone, whoever overrides it."""
    state = copy(points.state)
    mask = torch.arange(len(points)) % 2 == 0
    after = env.restart(copied(state), mask, torch.Generator().manual_seed(seed))
    if not same(take(state, ~mask), take(after, ~mask)):
        yield fault(
            "behaviour",
            "restart",
            "restart changes environments that it should leave alone",
            "episodes that go on jump to another state when others end",
            "choose row by row with where_state(mask, fresh, state)",
        )
    if varies(points.state) and same(take(state, mask), take(after, mask)):
        yield warned(
            "behaviour",
            "restart",
            "restart leaves the chosen environments where they were",
            "an episode goes on after its end",
            "draw new starts where mask is true",
        )


UNSEEDED = "equal seeds do not give equal runs, or different seeds are one experiment"
