"""What each TensorBoard tag means, written once as text into every run."""

DEFINITIONS = {
    "rollout/ep_rew_mean": "mean undiscounted return of the last 100 training episodes",
    "rollout/ep_len_mean": "mean length of the last 100 training episodes",
    "time/fps": "environment steps per second since the run (or its resumption) started",
    "train/policy_gradient_loss": "minus the discounted return of the window's segments with "
    "their bootstrap, mean over trajectories and per step of the window; no entropy bonus. Of ppo: "
    "the clipped surrogate's loss, mean over the update's minibatches",
    "train/loss": "of ppo: policy_gradient_loss + vf_coef * value_loss + ent_coef * entropy_loss, "
    "mean over the update's minibatches",
    "train/value_loss": "mean squared error of the value function over its minibatches",
    "train/explained_variance": "1 - Var(target - V) / Var(target), before the value function is "
    "fitted to this window; 1 is perfect",
    "train/entropy_loss": "minus the mean entropy of the (squashed) action distribution, in nats; "
    "of ppo: mean over the update's minibatches",
    "train/approx_kl": "mean of r - 1 - log r with r = pi_new / pi_old on the window, after the "
    "update; of ppo: mean over the update's minibatches, each before its step",
    "train/clip_fraction": "of ppo: share of steps whose r is farther than clip_range from 1, mean "
    "over the update's minibatches",
    "train/gradient_norm": "of ppo: norm of the gradient of policy and value function together, "
    "before clipping, mean over the update's minibatches",
    "train/learning_rate": "of the policy, by its schedule",
    "train/std": "mean standard deviation of the Gaussian before squashing",
    "train/saturated_actions": "share of action entries with |tanh(u)| > 0.99, where the pathwise "
    "gradient all but vanishes",
    "train/gradient_clipped": "1 where the policy's gradient was longer than max_grad_norm",
    "eval/mean_reward": "mean return of deterministic episodes in a separate environment, with the "
    "observation normaliser frozen",
    "eval/mean_ep_length": "mean length of those episodes",
    "variational/elbo": "evidence lower bound of a variational run, mean over a step's samples "
    "(there a trajectory is a sample of q, and the x-axis counts steps of the optimiser)",
    "gradient/{estimator}/variance": "V: unbiased trace of the covariance of one trajectory's "
    "gradient; the update's variance is V / N",
    "gradient/{estimator}/variance_low, variance_high": "95 % jackknife interval of V, on log V",
    "gradient/{estimator}/signal": "U: unbiased squared norm of the mean gradient, the mean of "
    "g_i . g_j over pairs of different trajectories; may be negative, is never clipped",
    "gradient/{estimator}/signal_z": "the signal in standard deviations of no signal, on a normal "
    "scale (Wilson-Hilferty): is there any gradient in this batch?",
    "gradient/{estimator}/effective_dimension": "V^2 / tr(Cov^2): in how many directions the "
    "gradient varies; 1 to the number of parameters",
    "gradient/{estimator}/largest_share": "share of the squared spread that one trajectory makes "
    "up, 1/N if all are alike: near 1, V and its interval are not to be trusted",
    "gradient/{estimator}/snr": "U / V of one trajectory, from running means of both (decay 0.9)",
    "gradient/{estimator}/noise_scale": "V / U from the same means: trajectories that an update "
    "needs for an SNR of 1; absent while the mean of U is not positive",
    "gradient/{estimator}/norm": "norm of the mean gradient, before clipping",
    "gradient/{estimator}/parameter/{name}": "V of one parameter tensor; they add up to V",
    "gradient/variance_ratio": "V of the score function over V of pathwise, on the same "
    "trajectories and for the same objective",
    "gradient/cosine": "cosine of the angle between the two mean gradients",
    "gradient/bias": "unbiased squared norm of the mean of g_i(score function) - g_i(pathwise), "
    "matched trajectory by trajectory; 0 in expectation where pathwise is unbiased",
    "gradient/bias_low, bias_high": "its 95 % jackknife interval",
    "gradient/bias_z": "the squared bias in standard deviations of no bias, on a normal scale "
    "(Wilson-Hilferty). Above 5, or above 3 time and again, with bias_low above 0: pathwise is "
    "wrong here (or terminations depend on the action). With few trajectories and skewed gradients "
    "one value above 3 proves little: without any bias, for f(x) = x^2, that happens in about 10 % "
    "of batches of 64 trajectories and 1 % of 1000; above 5, in 0.3 % and none seen",
    "gradient/pathwise/missing": "1 where pathwise could not be measured beside the score "
    "function: no differentiable path joins actions and objective, or it is not finite",
    "gradient/mix/weight": "mean weight on pathwise over the window's steps; each is fitted on the "
    "other half of the trajectories, and may be below 0 or above 1",
    "gradient/mix/guarded": "share of steps where the two estimators' action gradients, summed up "
    "to the step, differ so much (z above 5) that the score function alone is used",
    "gradient/by_step": "variance over trajectories of the gradient by each pre-squash action, "
    "dJ/du_t, by step of the window; mixed: of the weighted sum of both",
    "gradient/overhead": "share of all update time so far spent on these measurements, with what a "
    "measured backward takes beyond the mean of the others (unknown if every update is measured)",
}

CONVENTIONS = """\
- A *trajectory* is one environment's column of a window; N of them are the sample.
- Surrogates are summed over the window's steps, divided by their number T, and not reduced over
  trajectories: V and U are per trajectory and per step of the window, in (return / parameter)^2.
- The estimator that trains is measured on the very tensor that the optimiser uses, before clipping.
  The other is computed on the same trajectories and the same noise. Ppo takes many steps with a
  window: what is measured is the gradient where the first of them starts, on the whole window.
- The matched pair (ratio, cosine, bias) estimates the gradient of one objective: each segment's
  discounted reward from its start, with the value function at truncation and at the window's end.
- Covariances divide by N - 1. x-axis: environment steps.
"""


def definitions_text() -> str:
    """Markdown: a table of all tags, and the conventions behind the gradient group."""
    rows = "\n".join(f"| `{tag}` | {text} |" for tag, text in DEFINITIONS.items())
    return f"| tag | definition |\n|---|---|\n{rows}\n\n{CONVENTIONS}"
