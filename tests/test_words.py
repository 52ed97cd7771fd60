"""Messages in the words of Python."""

import pytest

from pgtoolkit.words import in_python


@pytest.mark.parametrize(
    ("flags", "python"),
    [
        ("--num-envs must be at least 1, not -1", "num_envs must be at least 1, not -1"),
        ("use --device cpu (or auto)", "use device='cpu' (or auto)"),
        ("leave --wrappers out, or", "leave wrappers out, or"),
        (
            "make --num-envs, --n-steps or --hidden smaller",
            "make num_envs, n_steps or hidden smaller",
        ),
        ("with --no-normalize-rewards.", "with normalize_rewards=False."),
        ("lengthen it with --total-steps 2000", "lengthen it with total_steps=2000"),
        ("(--rollout windows), which", "(rollout='windows'), which"),
        ("--differentiate finite-difference", "differentiate='finite-difference'"),
        ("""(--adapter-kwargs '{"n": 2}')""", "(adapter_kwargs={'n': 2})"),
        ("Read the code, then give --trust, or", "Read the code, then give trust=True, or"),
        ("no such thing (see pgtoolkit train shac --help)", "no such thing"),
        ("`pgtoolkit resume r --total-steps 9`", "`pgtoolkit resume r --total-steps 9`"),
        ("a dash - or two -- are no flag", "a dash - or two -- are no flag"),
    ],
)
def test_flags_become_keyword_arguments(flags: str, python: str) -> None:
    """Values too; commands in backticks stay. A second time changes nothing."""
    assert in_python(flags) == python
    assert in_python(python) == python
