"""Twenty questions that a newcomer asks, and the file whose name answers each.

The questions were written before the files were arranged. A reader who knows reinforcement learning
and torch should guess the file; the test holds that the thing is defined there.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]


class Question(NamedTuple):
    """A question, the file that answers it, and the name that the file defines."""

    text: str
    file: str
    name: str


QUESTIONS = (
    Question(
        "Where is generalised advantage estimation (GAE)?",
        "pgtoolkit/estimators/returns.py",
        "gae",
    ),
    Question(
        "Where is the score-function (REINFORCE) surrogate?",
        "pgtoolkit/estimators/surrogates.py",
        "score_function_surrogate",
    ),
    Question(
        "Where is the list of all gradient estimators, with their names, labels and colours?",
        "pgtoolkit/estimators/catalogue.py",
        "CATALOGUE",
    ),
    Question(
        "Where would a new environment wrapper go?",
        "envs/wrappers/base.py",
        "DifferentiableWrapper",
    ),
    Question(
        "Where are the MuJoCo transition derivatives?",
        "envs/adapters/mujoco/derivatives.py",
        "ChainedTransitions",
    ),
    Question(
        "Where are the pendulum's dynamics?",
        "envs/control/pendulum.py",
        "Pendulum.transition",
    ),
    Question(
        "Where is the tanh-squashed Gaussian's log density?",
        "pgtoolkit/distributions/squashed.py",
        "TanhSquashed.log_prob",
    ),
    Question(
        "Where is the KL divergence of two Gaussians?",
        "pgtoolkit/distributions/gaussian.py",
        "DiagonalGaussian.closed_form_kl_divergence",
    ),
    Question(
        "Where is the policy's network put together from the settings?",
        "pgtoolkit/policies/factory.py",
        "make_policy",
    ),
    Question(
        "Where is Adam with clipping and a learning-rate schedule?",
        "pgtoolkit/learners/step_rules/adam.py",
        "Adam",
    ),
    Question(
        "Where is the value function fitted?",
        "pgtoolkit/learners/value_learner.py",
        "ValueLearner.fit",
    ),
    Question(
        "Where is the replay buffer?",
        "pgtoolkit/rollouts/replay.py",
        "ReplayBuffer",
    ),
    Question(
        "Where is the observation normaliser?",
        "pgtoolkit/networks/normalizer.py",
        "ObservationNormalizer",
    ),
    Question(
        "Where is the variance of a gradient estimated, with its interval?",
        "pgtoolkit/diagnostics/statistics.py",
        "GradientStatistics.of",
    ),
    Question(
        "Where is the gradient of each trajectory computed?",
        "pgtoolkit/diagnostics/per_trajectory.py",
        "GradientRecorder.per_trajectory",
    ),
    Question(
        "Where is a checkpoint written?",
        "pgtoolkit/training/checkpoint.py",
        "save_checkpoint",
    ),
    Question(
        "Where are the TensorBoard tags defined?",
        "pgtoolkit/training/tags.py",
        "DEFINITIONS",
    ),
    Question(
        "Where is the training loop?",
        "pgtoolkit/training/loop.py",
        "train",
    ),
    Question(
        "Where is PPO's clipped loss?",
        "agents/ppo.py",
        "ppo_loss",
    ),
    Question(
        "Where is an environment's name turned into an environment?",
        "envs/registry/resolve.py",
        "find_env",
    ),
)


def defined(source: str) -> set[str]:
    """The names that a module defines itself, not those that it imports; ``Class.method`` too."""
    return set(_definitions(ast.parse(source).body, ""))


def _definitions(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            yield from _definitions(node.body, f"{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + x.id for x in targets if isinstance(x, ast.Name))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.text)
def test_the_thing_is_defined_in_the_file_whose_name_answers(question: Question) -> None:
    assert question.name in defined((ROOT / question.file).read_text())


def test_there_are_twenty_questions_that_differ() -> None:
    assert len({question.text for question in QUESTIONS}) == len(QUESTIONS) == 20


def test_a_name_that_is_only_imported_is_not_defined() -> None:
    """``defined`` finds assignments, classes and methods, and no imported name."""
    source = "from a import gae\nX: int = 1\nclass A:\n    def f(self): ...\n    Y = 2\n"
    assert defined(source) == {"X", "A", "A.f", "A.Y"}
