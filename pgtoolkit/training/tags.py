"""Definitions of the TensorBoard tags, written once as text into every run."""

from pgtoolkit.diagnostics.bias import BIAS_SHARE, BIAS_Z

DEFINITIONS = {
    "rollout/ep_rew_mean": "mean undiscounted return of the last 100 training episodes",
    "rollout/ep_len_mean": "mean length of the last 100 training episodes, in steps",
    "rollout/success_rate": "share of the last 100 training episodes whose last step had a true "
    "is_success in its info; absent in environments whose infos do not have it",
    "rollout/env_faults": "with --on-fault drop or restart: how many times an environment failed "
    "so far (raised, took too long, returned NaN or what its spaces do not allow, or its worker "
    "process ended)",
    "time/fps": "environment steps per second since the run started or was resumed",
    "time/fps_now": "environment steps per second since the last row, with evaluations and "
    "checkpoints",
    "time/cpu_seconds": "CPU time of the training process, or of all processes of the run, with "
    "all threads so far, in seconds: updates, logging and checkpoints, without evaluations, and "
    "without the start of the process. It goes on over a resume. Worker processes (--vectorization "
    "async) and devices are not in it",
    "train/policy_gradient_loss": "minus the discounted return of the window's segments with "
    "their bootstraps, mean over trajectories, divided by n_steps, without the entropy bonus. In "
    "ppo: minus the clipped surrogate, mean over the update's minibatches. In reppo: minus the "
    "estimate of E[Q], mean over the update's minibatches",
    "train/loss": "ppo: policy_gradient_loss + vf_coef * value_loss + ent_coef * entropy_loss; "
    "reppo: the loss of the policy and of its dual variables; mean over the update's minibatches",
    "train/value_loss": "mean squared error of the value function, mean over the update's "
    "minibatches; added up over the value functions where there are several",
    "train/critic_loss": "loss of the Q functions, added up over them (with critic mse the "
    "squared error, which sac halves; with hl_gauss the cross entropy), mean over the update's "
    "minibatches",
    "train/actor_loss": "sac: alpha log pi - min Q of actions drawn anew on replayed states; td3: "
    "minus the first Q of the policy's own actions. Mean over the steps of the policy in an update",
    "train/ent_coef": "sac, reppo and sapo: alpha, the weight of the entropy; in sac the mean over "
    "the update's minibatches; in reppo that of the soft rewards, before the update's steps; in "
    "sapo before its step, in units of the standard deviation of the window's rewards",
    "train/ent_coef_loss": "sac with ent_coef auto: -log(alpha) (log pi + target_entropy), mean "
    "over the update's minibatches; log pi is of the action in units of its box, [-1, 1]. In sapo: "
    "alpha (H - target_entropy), with the mean entropy H of the Gaussian before squashing",
    "train/value_epochs": "ahac only: passes of the value functions over this window",
    "train/horizon": "ahac only: steps of this window",
    "train/horizon_dual": "ahac only: sum of the multipliers of the constraints on the horizon, "
    "after their step",
    "train/horizon_amplification": "ahac only: the largest root mean square of the adjoint dJ/du "
    "at one distance from its segment's end, in units of that of the segment's last step; the "
    "discount is taken out",
    "train/explained_variance": "1 - Var(target - V) / Var(target), before the value function is "
    "fitted to this window; 1 is perfect; absent if the target is constant up to rounding",
    "train/entropy_loss": "minus the mean entropy of the action distribution after squashing, in "
    "nats, after the update. In ppo: mean over the update's minibatches, each before its step",
    "train/approx_kl": "mean of r - 1 - log r with r = pi_new / pi_old on the window, after the "
    "update: an estimate of KL(pi_old, pi_new); r is limited to exp(20). In ppo: mean over the "
    "update's minibatches, each before its step. In reppo: the exact KL(pi_old, pi_new), mean over "
    "the window's states, after the update",
    "train/kl": "npg, trpo and rpo: mean KL(pi_old, pi_new) over the window's states, after the "
    "update's steps",
    "train/line_search_trials": "trpo only: lengths that the line search tried, the taken one "
    "included; 0 if none was taken",
    "train/step_rejected": "trpo only: 1 if no length improved within target_kl, so that no step "
    "was taken, else 0",
    "train/kl_exceeded": "reppo only: share of the window's states whose exact KL(pi_old, pi_new) "
    "is beyond kl_bound, after the update",
    "train/kl_coef": "reppo only: learned weight beta of the divergence beyond kl_bound",
    "train/critic_gradient_norm": "norm of the critic's gradient before clipping, mean over the "
    "update's minibatches",
    "train/epochs": "ppo with target_kl: epochs that were made of this update's window",
    "train/clip_fraction": "ppo: share of samples whose r differs from 1 by more than clip_range, "
    "mean over the update's minibatches; rpo: share of steps whose r is outside of [1 - clip_low, "
    "1 + clip_high], mean over the update's steps after the first",
    "train/gradient_norm": "norm of the policy's gradient before clipping; in a2c and ppo that of "
    "policy and value function together; in ppo, reppo, sac and td3 the mean over the update's "
    "steps",
    "train/log10_gradient_norm": "log10 of train/gradient_norm, for the page of charts; absent "
    "while that is 0",
    "train/reward_scale": "with --normalize-rewards: the number by which the window's rewards were "
    "divided in the update, a 30th of the standard deviation of the discounted return so far of "
    "an episode, G_t = r_t + gamma G_(t-1), over all steps of the run; 1 while that is constant",
    "train/learning_rate": "learning rate of the policy in this update, by its schedule",
    "train/std": "mean standard deviation of the Gaussian before squashing; with clipped_gaussian "
    "in units of half of the action bounds' distance",
    "train/saturated_actions": "share of action entries with |tanh(u)| > 0.99, where the pathwise "
    "gradient nearly vanishes",
    "train/policy_gain": "largest singular value of dmu/ds over the window, with mu the Gaussian "
    "mean before squashing and s the observation before it is normalised; measured whenever "
    "gradients are",
    "train/gradient_clipped": "1 if the norm of the policy's gradient exceeded max_grad_norm, "
    "else 0",
    "train/clipped_actions": "share of the action entries in a window's valid steps that a "
    "clipped_gaussian draws beyond the action bounds, so that they are clipped",
    "environment/model_error": "with a learned model: squared error of its mean prediction of the "
    "change of observation on held-out steps, over the variance of the change, mean over entries; "
    "0 is perfect, 1 is as good as the mean change",
    "environment/model_reward_error": "the same of the reward",
    "environment/ensemble_spread": "variance among the networks, in the unit of model_error",
    "environment/model_steps": "steps that the learned model was given so far",
    "eval/mean_reward": "mean undiscounted return of evaluation episodes, in separate environments "
    "with deterministic actions and a frozen observation normaliser",
    "eval/standard_error": "standard error of eval/mean_reward over the evaluation's episodes",
    "eval/mean_ep_length": "mean length of the evaluation episodes, in steps",
    "eval/success_rate": "share of the evaluation episodes whose last step had a true is_success "
    "in its info; absent in environments whose infos do not have it",
    "eval/cut_off_episodes": "share of the evaluation episodes that did not end within "
    "eval_max_steps and were cut off there, with the return so far; absent until there is one",
    "eval/actions_at_bound": "share of the entries of an evaluation's actions that are closer to a "
    "bound than 0.5 % of the bounds' distance, over all dimensions with bounds; the actions are "
    "deterministic",
    "eval/actions/...": "histograms: an evaluation's actions in one dimension of the action space, "
    "with its bounds at -1 and 1. Much at the ends: the policy switches between the bounds, where "
    "the pathwise gradient nearly vanishes. The first 32 dimensions with bounds have one",
    "eval/video": "with --capture-video: one episode of the deterministic policy, always from the "
    "same start, made smaller and shorter; the whole one is in the run's folder, videos/*.mp4",
    "variational/elbo": "evidence lower bound of a variational run, mean over a step's samples. In "
    "such a run a trajectory is a sample of q, and the x-axis counts optimiser steps",
    "gradient/trajectories": "N: number of trajectories (or samples of a batch) that were measured",
    "gradient/{estimator}/followed": "1 for the estimator that the optimiser follows; others are "
    "measured beside it",
    "gradient/{estimator}/variance": "V: unbiased trace of the covariance of one trajectory's "
    "gradient; the variance of the update is V / N",
    "gradient/{estimator}/variance_low, variance_high": "95 % interval of V, by the jackknife of "
    "log V with an allowance for a tail that was not seen; absent where too few trajectories make "
    "up V, such as in a batch without any reward",
    "gradient/{estimator}/signal": "U: unbiased squared norm of the mean gradient, which is the "
    "mean of g_i . g_j over pairs of different trajectories; may be negative and is never clipped",
    "gradient/{estimator}/signal_z": "z of the hypothesis that the true signal is 0, on a normal "
    "scale (Wilson-Hilferty): whether this batch shows any gradient",
    "gradient/{estimator}/effective_dimension": "V^2 / tr(Cov^2): number of directions in which "
    "the gradient varies, between 1 and the number of parameters",
    "gradient/{estimator}/largest_share": "largest share of one trajectory in the sum of squared "
    "deviations from the mean gradient; 1/N if all trajectories contribute alike. Near 1, V and "
    "its interval are unreliable",
    "gradient/{estimator}/snr": "U / V of one trajectory, from the sums of U and V over the last "
    "five measurements",
    "gradient/{estimator}/noise_scale": "V / U from the same sums: the number of trajectories "
    "with which an update has an SNR of 1; absent while the sum of U is not positive",
    "gradient/{estimator}/norm": "norm of the mean gradient, before clipping",
    "gradient_parameters/...": "V of one parameter tensor; the sum over tensors is V",
    "gradient/{estimator}/log10_variance, log10_variance_low, log10_variance_high": "log10 of "
    "V and of its interval's ends, for the page of charts; an end that is not known is the value "
    "itself",
    "gradient/followed/log10_snr": "log10 of the SNR of the estimator that trains; absent while it "
    "is not positive",
    "gradient/followed/largest_share": "largest_share of the estimator that trains",
    "gradient/variance_ratio": "V of the score function divided by V of pathwise, on the same "
    "trajectories and for the same objective",
    "gradient/variance_ratio_low, variance_ratio_high": "95 % interval of the ratio, by the "
    "jackknife over trajectories of the logarithm of the ratio; an end is absent where nothing is "
    "known. If 1 is between the ends, these trajectories cannot tell which V is larger",
    "gradient/log10_variance_ratio": "log10 of gradient/variance_ratio; 0 is break-even, and above "
    "0 pathwise has the lower variance",
    "gradient/log10_variance_ratio_low, log10_variance_ratio_high": "log10 of the ends of the "
    "ratio's interval",
    "gradient/cosine": "cosine of the angle between the mean gradients of the score function and "
    "of pathwise. Noise makes it smaller than that of the true means",
    "gradient/cosine_low, cosine_high": "95 % interval of the cosine between the true means, "
    "without that noise; absent unless both estimators show a signal",
    "gradient/bias": "unbiased squared norm of the mean of g_i(score function) - g_i(pathwise) on "
    "the same trajectories; its expectation is 0 if pathwise is unbiased. It matters from "
    f"{BIAS_SHARE:.0%} of pathwise's signal on",
    "gradient/bias_low, bias_high": "95 % interval of gradient/bias; absent where too few "
    "trajectories make up the difference",
    "gradient/bias_z": "z of the hypothesis that the squared bias is 0, on a normal scale "
    f"(Wilson-Hilferty). If it is above {BIAS_Z:.0f} and bias_low is above 0, pathwise is biased "
    "here, or terminations depend on the action. Smaller values prove nothing: with few "
    "trajectories and skewed gradients z exceeds 3 without any bias, for f(x) = x^2 in about 10 % "
    "of batches of 64 trajectories and 1 % of batches of 1000; it exceeds 5 in 0.3 % and in none",
    "gradient/bias_z_threshold": f"{BIAS_Z:.0f}, beside gradient/bias_z",
    "gradient/log10_detectable_bias": "log10 of the squared bias at which bias_z would be "
    f"{BIAS_Z:.0f}, over the signal of pathwise: a smaller bias cannot be seen with these "
    "trajectories; absent unless that signal is seen",
    "gradient/log10_bias_that_matters": f"log10 of {BIAS_SHARE}, beside it: while "
    "log10_detectable_bias is above, a bias that matters may be there and not be seen",
    "gradient/relative_bias": "gradient/bias over the signal of the score function, on the same "
    "trajectories; absent unless that signal is seen",
    "gradient/bias_by_step, cosine_by_step": "images over the steps of the window, of the two "
    "estimates of dJ/du_t: unbiased squared norm of the mean of their difference, and the cosine "
    "sum_i a_i . b_i / sqrt(sum_i |a_i|^2 sum_i |b_i|^2) over trajectories, which noise makes "
    "smaller",
    "gradient/critic/bias, bias_low, bias_high, bias_z, relative_bias, log10_detectable_bias, "
    "bias_z_threshold, log10_bias_that_matters": "of the critic's gradient "
    "against the exact one (pathwise) on the trajectories of gradient/probe: the same numbers as "
    "gradient/bias and its kind. relative_bias is the squared bias over the exact gradient's "
    "signal. What the two share is not seen: the critic's error in the value after probe_steps",
    "gradient/critic/cosine, cosine_low, cosine_high": "cosine of the critic's mean gradient to "
    "the exact one, and the 95 % interval of that of the true means",
    "gradient/critic/bias_by_step, cosine_by_step": "images of the same by step of the window, of "
    "gamma^k d(Q - alpha log pi)/du_k against dJ/du_k",
    "gradient/critic/variance_ratio, variance_ratio_low, variance_ratio_high": "V of pathwise "
    "divided by V of the critic's, on the trajectories of gradient/probe",
    "gradient/critic/log10_variance_ratio, log10_variance_ratio_low, log10_variance_ratio_high": ""
    "log10 of the same",
    "gradient/critic_to_score/...": "the same as gradient/critic/..., of the critic's against the "
    "score function on the trajectories of gradient/probe: also right where pathwise is biased",
    "gradient/critic_on_states/...": "the score function against the critic's on a batch of the "
    "agent's states: variance_ratio is V of the score function over V of the critic's. In sac, td3 "
    "and svg both are of fresh actions and unbiased for the agent's Q function, so bias and cosine "
    "only check the measurement. In reppo the score function is that of the lambda returns of the "
    "window, so bias is the critic's squared bias against these, without intervals",
    "gradient/probe/...": "the tags of gradient/{estimator}/..., of gradients that are measured "
    "in differentiable environments beside the agent's (probe_envs trajectories of probe_steps "
    "steps): of sum_k gamma^k (r_k - alpha log pi_k) and the critic's value at the end, in the "
    "environment's unit of reward and not divided by the steps",
    "gradient/pathwise/missing": "1 if pathwise could not be measured beside the others, because "
    "no differentiable path joins the actions to the objective or because the gradient is not "
    "finite",
    "gradient/mix/weight": "mean weight on pathwise (on the critic, where there is no path through "
    "the environment) over the window's steps. Each weight is fitted "
    "on other trajectories, and is between 0 and 1.5",
    "gradient/mix/guarded": "share of steps at which the score function alone is used, because the "
    "two estimators' action gradients, summed up to that step, differ significantly (z above 5)",
    "gradient/adjoint_growth": "factor by which the root mean square of dJ/du_t over trajectories "
    "grows for each step backwards in time, by least squares of its logarithm over the window. "
    "Above 1, the variance of pathwise grows with the length of the window",
    "gradient/by_step": "variance over trajectories of the gradient by each pre-squash action, "
    "dJ/du_t, at each step of the window. For mixed: of the weighted sum of both estimates",
    "gradient/overhead": "share of all update time so far that was spent on these measurements, "
    "including what a measured backward pass takes beyond the mean of the others (which is unknown "
    "if every update is measured)",
}

CONVENTIONS = """\
- A *trajectory* is one environment's column of a window. The N trajectories of a window are the
  sample.
- Surrogates are summed over a trajectory's steps, divided by the setting n_steps, and not reduced
  over trajectories. V and U are therefore of one trajectory's gradient divided by n_steps, in
  (return / parameter)^2. n_steps is the number of steps of a window; with whole episodes
  (reinforce --rollout episodes) it is divided by all the same, so that the unit stays while
  episodes grow. Dividing by the episodes' length, which depends on the actions, would bias the
  gradient.
- The gradient of the estimator that trains is the very tensor that the optimiser uses, before
  clipping. The other estimator is computed on the same trajectories with the same noise. Ppo makes
  many steps with a window: its gradient is measured on the whole window at the first of them. Where
  it standardises advantages, the measured gradient is that of the standardised ones times their
  standard deviation over the window: the direction of the step, in the other agents' unit.
- The matched pair (ratio, cosine, bias) estimates the gradient of one objective: the discounted
  reward of each segment from its start, with the value function's bootstrap on truncation and at
  the window's end.
- An agent with a critic climbs d(Q - alpha log pi)/du at all states alike, without gamma^k. Its own
  gradient/critic/variance, signal and SNR are of that, where a sample is a state. In reppo a sample
  is a step of the window, for all its estimators: what is measured are the surrogates that it can
  climb, before the steps of an update, at the policy that collected the window. Steps of one
  trajectory share returns, so the score function and the mix have no intervals and no z there, and
  pairs of such steps may add to their signal and to the bias of the pair. Against the exact
  gradient (gradient/probe, and the pairs gradient/critic/...) the critic's is discounted by gamma^k
  as the return is: at every state the two are parallel.
- With --normalize-rewards, which is ppo's default, the reward that an update sees is the
  environment's divided by train/reward_scale. The losses and gradient/by_step are in that unit:
  times reward_scale, and reward_scale^2, they are in the environment's (ppo's policy loss has no
  unit where it standardises advantages). V, U, the norm and gradient/bias are in the
  environment's, so that runs can be compared, as rollout/ and eval/ always are. Ratios, cosines,
  SNR, z and the explained variance have no unit.
- Covariances divide by N - 1. The x-axis counts environment steps.
"""


def definitions_text() -> str:
    """A Markdown table of all tags, followed by the conventions behind the gradient group."""
    rows = "\n".join(f"| `{tag}` | {text} |" for tag, text in DEFINITIONS.items())
    return f"| tag | definition |\n|---|---|\n{rows}\n\n{CONVENTIONS}"
