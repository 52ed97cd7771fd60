"""What TensorBoard shows: the page of charts, and the scalars that are written for it alone.

The page is the tab *Custom Scalars*. Its charts answer four questions in this order: is it
learning, which gradient is better, is it biased, what is wrong. Ten charts answer them; the others
are in a group below, which is closed at first. A chart has one line for a run where it can, because
TensorBoard colours lines by run, and tells tags of one run apart by markers only.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch.utils.tensorboard.summary import custom_scalars

from pgtoolkit.diagnostics.bias import BIAS_SHARE, BIAS_Z
from pgtoolkit.estimators.catalogue import CATALOGUE

Chart = list[Any]
"""``["Multiline", [tag, ...]]`` or ``["Margin", [value, low, high]]``, as torch's writer has it."""

MORE = "More: norm, saturation, speed, cosine, variances"
"""The group that is closed at first."""

TRAINING_SUCCESS, EVAL_SUCCESS = "rollout/success_rate", "eval/success_rate"
FOLLOWED_SNR = "gradient/followed/log10_snr"
FOLLOWED_SHARE = "gradient/followed/largest_share"
NORM, LOG_NORM = "train/gradient_norm", "train/log10_gradient_norm"
ENDS = ("", "_low", "_high")


def dashboard_scalars(scalars: Mapping[str, float], followed: str) -> dict[str, float]:
    """Scalars that are written for the page of charts: logarithms, thresholds, intervals' ends.

    Args:
        scalars: those of one update.
        followed: the estimator that the optimiser follows.

    Returns:
        TensorBoard tag to number. A margin chart needs both ends at every step of its value, and
        is scaled by them alone. So an end that is not known is the value itself: no band.
    """
    return {
        **_log_variances(scalars),
        **_followed(scalars, followed),
        **_log_norm(scalars),
        **_biases(scalars),
    }


def _log_variances(scalars: Mapping[str, float]) -> dict[str, float]:
    """``log10`` of every estimator's variance, with the ends; nothing while it has none."""
    found = {}
    for name in CATALOGUE:
        for group in (f"gradient/{name}", f"gradient/probe/{name}"):
            value = scalars.get(f"{group}/variance", 0.0)
            if has_logarithm(value):
                for end in ENDS:
                    known = scalars.get(f"{group}/variance{end}", value)
                    known = known if has_logarithm(known) else value
                    found[f"{group}/log10_variance{end}"] = math.log10(known)
    return found


def _followed(scalars: Mapping[str, float], followed: str) -> dict[str, float]:
    """Of the estimator that trains: ``log10`` of its SNR while that is positive, largest share."""
    group = f"gradient/{followed}"
    found = {}
    if (snr := scalars.get(f"{group}/snr", math.nan)) > 0:
        found[FOLLOWED_SNR] = math.log10(snr)
    if (share := scalars.get(f"{group}/largest_share")) is not None:
        found[FOLLOWED_SHARE] = share
    return found


def _log_norm(scalars: Mapping[str, float]) -> dict[str, float]:
    """``log10`` of the gradient's norm; nothing while it is 0 or not finite."""
    norm = scalars.get(NORM, 0.0)
    return {LOG_NORM: math.log10(norm)} if has_logarithm(norm) else {}


def _biases(scalars: Mapping[str, float]) -> dict[str, float]:
    """The thresholds beside each pair's z and detectable bias, and unknown ends of intervals."""
    found = {}
    for tag in scalars:
        group, _, name = tag.rpartition("/")
        if name == "bias_z":
            found[f"{group}/bias_z_threshold"] = BIAS_Z
        if name == "log10_detectable_bias":
            found[f"{group}/log10_bias_that_matters"] = math.log10(BIAS_SHARE)
        if name in ("log10_variance_ratio", "cosine"):
            ends = [f"{tag}{end}" for end in ENDS[1:]]
            found |= {end: scalars[tag] for end in ends if end not in scalars}
    return found


def has_logarithm(value: float) -> bool:
    """Whether the number is positive and finite."""
    return value > 0 and math.isfinite(value)


def layout(has_critic: bool, has_success: bool = False) -> dict[str, dict[str, Chart]]:
    """The charts of a run, by question.

    Every run has the same ones, those with a critic some more, and those whose environment says
    what a success is one or two: TensorBoard joins the layouts of all runs that it shows. In a
    group it puts margin charts behind the others, and the last of them first.

    Args:
        has_critic: whether the agent has a Q function.
        has_success: whether episodes say if they succeeded.
    """
    return {
        "1. Is it learning?": {
            "return while training, mean of 100 episodes": line("rollout/ep_rew_mean"),
            "return of evaluations, deterministic actions": line("eval/mean_reward"),
            **(success_charts() if has_success else {}),
        },
        "2. Which gradient is better?": {
            "log10 of the SNR of the gradient that trains, one trajectory (no point: 0 or less)": (
                line(FOLLOWED_SNR)
            ),
            **variance_charts("pathwise", "score_function"),
            "log10 of variance, score function over pathwise (above 0: pathwise is better)": margin(
                "gradient/log10_variance_ratio"
            ),
        },
        "3. Is it biased?": bias_charts("gradient", "pathwise against the score function"),
        "4. What is wrong?": {
            "largest share of one trajectory in the variance of the gradient that trains (near 1: "
            "do not trust it)": line(FOLLOWED_SHARE),
            "explained variance of the value function or critic": line("train/explained_variance"),
        },
        **({"5. And through the critic?": critic_charts()} if has_critic else {}),
        MORE: more_charts(has_critic),
    }


def layout_summary(groups: Mapping[str, Mapping[str, Chart]]) -> Summary:
    """What a run's event file has of its charts; the group :data:`MORE` is closed at first.

    Args:
        groups: as :func:`layout` has them.
    """
    summary: Summary = custom_scalars(groups)  # type: ignore[no-untyped-call]
    [encoded] = summary.value[0].tensor.string_val
    found = Layout.FromString(encoded)
    for category in found.category:
        category.closed = category.title == MORE
    summary.value[0].tensor.string_val[0] = found.SerializeToString()
    return summary


def success_charts() -> dict[str, Chart]:
    """The share of episodes that succeeded."""
    return {
        "share of evaluation episodes that succeed": line(EVAL_SUCCESS),
        "share of training episodes that succeed, the last 100": line(TRAINING_SUCCESS),
    }


def critic_charts() -> dict[str, Chart]:
    """Which of score function and critic is better, and whether the critic is biased."""
    return {
        **bias_charts("gradient/critic", "critic against the exact gradient"),
        "log10 of variance, score function over critic (above 0: critic is better)": margin(
            "gradient/critic_on_states/log10_variance_ratio"
        ),
    }


def more_charts(has_critic: bool) -> dict[str, Chart]:
    """What helps where the first charts raise a question."""
    pairs = {"gradient": "pathwise against the score function"}
    pairs |= {"gradient/critic": "critic against the exact gradient"} if has_critic else {}
    return {
        "log10 of the norm of the policy's gradient, before clipping": line(LOG_NORM),
        "share of saturated actions": line("train/saturated_actions"),
        "environment steps per second, since the last row": line("time/fps_now"),
        **{
            f"cosine, {pair}, with 95 % interval": margin(f"{group}/cosine")
            for group, pair in pairs.items()
        },
        **variance_charts("mixed", *(("critic",) if has_critic else ())),
    }


def variance_charts(*names: str) -> dict[str, Chart]:
    """The variance of each estimator with its interval."""
    return {
        f"log10 of variance, {CATALOGUE[name].label}, with 95 % interval": margin(
            f"gradient/{name}/log10_variance"
        )
        for name in names
    }


def bias_charts(group: str, pair: str) -> dict[str, Chart]:
    """Whether a pair shows a bias, and whether it could."""
    return {
        f"z of the bias, {pair} (above {BIAS_Z:g}: biased)": line(
            f"{group}/bias_z", f"{group}/bias_z_threshold"
        ),
        f"log10 of the least bias that would be seen, {pair.split()[0]} (above "
        f"{math.log10(BIAS_SHARE):.1f}: too few trajectories)": line(
            f"{group}/log10_detectable_bias", f"{group}/log10_bias_that_matters"
        ),
    }


def line(*tags: str) -> Chart:
    """A chart with a line for each tag and run."""
    return ["Multiline", [f"^{re.escape(tag)}$" for tag in tags]]


def margin(tag: str) -> Chart:
    """A chart with a line for each run, and its interval as a band."""
    return ["Margin", [f"{tag}{end}" for end in ENDS]]
