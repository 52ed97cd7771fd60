from pathlib import Path

import pytest

from pgtoolkit.scripts import train

CUT = """
from pgtoolkit.envs import PointMass


class Cut(PointMass):
    def reward(self, state, action, next_state):
        return super().reward(state, action, next_state.detach() if {cut} else next_state)
"""


@pytest.mark.parametrize(
    ("agent", "cut", "warned"), [("shac", True, True), ("shac", False, False), ("ppo", True, False)]
)
def test_a_run_that_follows_a_wrong_gradient_warns_before_it_trains(
    agent: str,
    cut: bool,
    warned: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And says it again in its closing lines, where the first ones are out of sight."""
    file = tmp_path / "cut.py"
    file.write_text(CUT.format(cut=cut))
    flags = ["--total-steps", "128", "--num-envs", "2", "--run-dir", str(tmp_path / "run")]
    train.run([agent, "--env", f"{file}:Cut", *flags])
    assert (f"warning: {file}:Cut, in its first steps: wrong: d sum" in caplog.text) == warned
    assert (f"`pgtoolkit check-env {file}:Cut`" in caplog.text) == warned
    assert ("check:          at the start, wrong: d sum" in capsys.readouterr().out) == warned
