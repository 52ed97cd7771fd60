"""What the agents' pages say beside the code: the objective as a formula, and defects avoided.

A defect is a fault that is common in implementations of the algorithm; each line says what this
package does instead. Figures are those of ``docs/decisions.md`` and ``docs/results.md``.
"""

from typing import NamedTuple, final


@final
class AgentNotes(NamedTuple):
    """The written part of an agent's page."""

    title: str
    gradient: str
    """Which gradient it follows, in a few words."""
    when: str
    """Where to use it, in a sentence or two."""
    objective: str
    """In LaTeX."""
    sources: str
    defects: tuple[str, ...]


WINDOWS = (
    "A time limit is no end: where an episode was cut off, the value of the last state stands for "
    "the rewards that would have followed. Only a terminal state has the value 0."
)
NATURAL = (
    WINDOWS,
    "Products with the Fisher information are exact: the second derivative of the divergence that "
    "the distributions compute in closed form, and no difference of gradients. They are tested "
    "against the closed form of a linear Gaussian, and the mean square of the scores of "
    "categories.",
    "The step does not depend on the scale of the rewards, because its length is a divergence.",
)
RANDOM_STEPS = (
    "`--learning-starts` is the number of random steps at the beginning. The default is 100, that "
    "of Stable-Baselines3; the preset for HalfCheetah-v5 has 10,000. "
)
REPLAY = (
    "A time limit is no terminal state, in the targets of the critics either.",
    "Densities and entropies are those of the action in units of its box, so that neither the "
    "target entropy nor the exploration noise depends on the environment's bounds.",
    "The replay buffer is saved with the run, each transition once, so that a resumed run ends "
    "with the same bits.",
    "The critic's gradient is measured beside the exact one in differentiable environments, and "
    "beside the score function elsewhere: values that fit say little about slopes.",
)
PATHWISE = (
    "The default estimator is `mixed`: at every step the weighted mean of pathwise and score "
    "function that has the least variance, and the score function alone where pathwise is found "
    "to be biased ([which gradient should I use?](../../guide/which_gradient.md)).",
    "The biases of the first layer are spread over ±0.3, and the policy starts with a standard "
    "deviation of 0.61. Otherwise the LayerNorm makes the gain unbounded near a target, and the "
    "gradient explodes ([why](../../gain.md)).",
    "The weight of the entropy bonus is in units of the standard deviation of the rewards: an "
    "absolute one that is right for the pendulum outweighs the task of `Reacher-v5`.",
)

NOTES: dict[str, AgentNotes] = {
    "reinforce": AgentNotes(
        title="REINFORCE",
        gradient="score function",
        when="To see the estimator itself, and as the baseline of a comparison. It uses every "
        "window for one step, so it needs many of them; episodes should be short.",
        objective=r"\nabla J \approx \frac{1}{N} \sum_{i=1}^{N} \sum_t A_{i,t}\, "
        r"\nabla \log \pi_\theta(a_{i,t} | s_{i,t})",
        sources="Williams (1992); Schulman et al. (2016) for the advantage.",
        defects=(
            WINDOWS,
            "The gradient is divided by a constant number of steps. Dividing by the length of the "
            "episodes, which depends on the actions, would bias it.",
            "`--baseline leave_one_out` is the mean of the *other* trajectories. The mean of all "
            "would shrink the gradient, and dividing by the batch's standard deviation would turn "
            "it.",
            "The factor `gamma^t` of the discounted objective, which most implementations leave "
            "out, is a flag (`--discounted-score`); with `--advantage return` it is always there.",
            "Adam has a short memory, (0.7, 0.95). With (0.9, 0.999) the agent learned "
            "`InvertedPendulum-v5` and then lost it: the second moment still contained the large "
            "early gradients.",
        ),
    ),
    "a2c": AgentNotes(
        title="A2C",
        gradient="score function",
        when="Environments that cost little, in many copies: one step a window, and few settings.",
        objective=r"\frac{1}{NT} \sum_{i,t} \Big[ A_{i,t} \log \pi_\theta(a_{i,t} | s_{i,t}) - c\, "
        r"\big(V_\phi(s_{i,t}) - G_{i,t}\big)^2 \Big]",
        sources="Mnih et al. (2016), in its synchronous form.",
        defects=(
            WINDOWS,
            "The common norm to which the gradients are clipped is 100 by default. The value "
            "function's gradient is by far the longer one where returns are large, and a short "
            "clip would scale the policy's by it.",
            "Actions live in the unit box and are scaled to the environment's bounds inside of the "
            "policy, so that bounds such as [10, 20] or [0, 1000] need no wrapper.",
        ),
    ),
    "ppo": AgentNotes(
        title="PPO",
        gradient="score function, several clipped steps a window",
        when="The first choice for discrete actions, images, and everything whose slope nobody "
        "knows. It takes many environment steps, and forgives most settings.",
        objective=r"\mathbb{E}\Big[ \min\big(\rho_t A_t,\ \mathrm{clip}(\rho_t, 1 - \epsilon, "
        r"1 + \epsilon)\, A_t\big) \Big], \qquad "
        r"\rho_t = \frac{\pi_\theta(a_t | s_t)}{\pi_{\text{old}}(a_t | s_t)}",
        sources="Schulman et al. (2017).",
        defects=(
            WINDOWS,
            "Rewards are scaled by the running standard deviation of the discounted return, in "
            "updates only: rewards of 0.001 and of 1,000,000 are learned alike. What is logged and "
            "evaluated stays in the environment's unit.",
            "Actions live in the unit box and are scaled to the environment's bounds inside of the "
            "policy. A Gaussian over the raw action never learned on [10, 20].",
            "Actions are clipped on their way into the environment and not squashed by a tanh, "
            "with which two of five seeds stopped at -514 and -379 on `Pendulum-v1`.",
            "`--target-kl` ends an update after the epoch that went beyond it. `--surrogate spo`, "
            "`--adapt-learning-rate` and `--vf-clip-range` are variants, off by default.",
            "Gradients are measured before the epochs, where the ratio is 1: variance and SNR are "
            "in the unit of the other agents' and can be compared with them.",
            "`--noise-correlation` keeps the exploration noise on one side for a while, after "
            "Hollenstein et al. (2024). It solves `MountainCarContinuous-v0`. The gradient takes "
            "each action for a draw from the policy alone, and with correlated noise that is not "
            "so: it is then biased, and so are its measurements.",
        ),
    ),
    "npg": AgentNotes(
        title="NPG",
        gradient="score function, along the natural gradient",
        when="Where the length of a step should depend neither on the scale of the rewards nor "
        "on that of the parameters: networks of ordinary size, windows of a thousand "
        "steps and more.",
        objective=r"\theta \leftarrow \theta + \sqrt{\frac{2 d}{g^\top F^{-1} g}}\; F^{-1} g, "
        r"\qquad g = \frac{1}{NT} \sum_{i,t} A_{i,t} \nabla \log \pi_\theta(a_{i,t} | s_{i,t})",
        sources="Kakade (2001); generalised advantage estimates of Schulman et al. (2016).",
        defects=NATURAL,
    ),
    "trpo": AgentNotes(
        title="TRPO",
        gradient="score function, along the natural gradient, with a line search",
        when="As `npg`, where a bad step costs much: no step is taken that does not improve "
        "within the bound.",
        objective=r"\mathbb{E}\big[ \rho_t A_t \big] \quad\text{with}\quad "
        r"\mathrm{KL}(\pi_{\text{old}}\, \|\, \pi_\theta) \le d, \qquad "
        r"\rho_t = \frac{\pi_\theta(a_t | s_t)}{\pi_{\text{old}}(a_t | s_t)}",
        sources="Schulman et al. (2015).",
        defects=(
            *NATURAL,
            "Where no length of the step improves within the bound, the parameters stay what they "
            "were, to the bit, and `train/step_rejected` is 1. Others kept the last length that "
            "was tried.",
            "A surrogate or a divergence that is not a number rejects the step; it is not "
            "compared as if it were small.",
        ),
    ),
    "reppo": AgentNotes(
        title="REPPO",
        gradient="pathwise through a learned Q",
        when="Continuous actions without a slope of the environment, and hundreds of thousands of "
        "cheap steps. It keeps no replay memory.",
        objective=r"\mathbb{E}_{s}\, \mathbb{E}_{a \sim \pi_\theta}\big[ Q_\phi(s, a) \big] + "
        r"\alpha\, \mathcal{H}(\pi_\theta) \quad\text{with}\quad "
        r"\mathrm{KL}(\pi_{\text{old}}\, \|\, \pi_\theta) \le \delta",
        sources="Voelcker et al. (2025), relative entropy pathwise policy optimisation.",
        defects=(
            WINDOWS,
            "The divergence is a penalty at all states. With the published mask, which drops the "
            "objective at states beyond the bound (`--kl-constraint mask`), a run of `Hopper-v5` "
            "had a return of 806 after 400,000 steps, and with the penalty 2,161 (one seed).",
            "An entropy is worth `alpha (H - target)`, and nothing where it is at its target. With "
            "`alpha H` and a target below 0 every step costs, so that it pays to end an episode.",
            "The critic has five times the policy's learning rate, and a squared error: bins that "
            "hold any task's returns are wider than the differences that an action makes.",
            "The bound of the divergence falls over the run while the learning rates stay. Where "
            "the rates fell too, the weight of the divergence could not follow, and a run went "
            "from 6,199 to 105 in its last twentieth.",
            "The mean of the policies is evaluated and saved (`--policy-average`): single policies "
            "that follow one another differ by 1,000 to 2,000 on `Hopper-v5`.",
            "The gradient is measured before the critic has seen the window's returns.",
        ),
    ),
    "sac": AgentNotes(
        title="SAC",
        gradient="pathwise through two learned Q functions, from replayed steps",
        when="Continuous actions and expensive steps: the fewest environment steps of all, and "
        "the most computation for each.",
        objective=r"\mathbb{E}_{s \sim \mathcal{D}}\, \mathbb{E}_{a \sim \pi_\theta}\big[ "
        r"\min_j Q_j(s, a) - \alpha \log \pi_\theta(a | s) \big]",
        sources="Haarnoja et al. (2018).",
        defects=(
            *REPLAY,
            "The updates are those of Stable-Baselines3, and tests compare them.",
            f"{RANDOM_STEPS}After 100,000 steps seeds 0 and 20 had 1,272 and 4,258 with 100, and "
            "4,965 and 4,929 with 10,000.",
            "`--noise-correlation` keeps the exploration noise on one side for a while. Without it "
            "`MountainCarContinuous-v0` was not solved with the same settings.",
        ),
    ),
    "td3": AgentNotes(
        title="TD3",
        gradient="pathwise through the first of two learned Q functions, from replayed steps",
        when="As `sac`, for actions in a bounded box, with a deterministic policy and noise of "
        "a fixed size in the place of the learned entropy.",
        objective=r"\mathbb{E}_{s \sim \mathcal{D}}\big[ Q_1(s, \mu_\theta(s)) \big]",
        sources="Fujimoto et al. (2018).",
        defects=(
            *REPLAY,
            "The updates are those of Stable-Baselines3, and tests compare them.",
            f"{RANDOM_STEPS}After 100,000 steps seed 20 had 1,478 with 100, and 5,105 with 10,000.",
        ),
    ),
    "apg": AgentNotes(
        title="APG",
        gradient="pathwise through a window of the environment, mixed with the score function",
        when="A differentiable environment with short episodes whose gradient `pgtoolkit "
        "check-env` believes: nothing is learned but the policy.",
        objective=r"\mathbb{E}\Big[ \sum_{k < H} \gamma^k r_k \Big] \quad\text{by}\quad "
        r"\sum_t \frac{dJ}{da_t} \frac{\partial a_t}{\partial \theta}",
        sources="Freeman et al. (2021) for the name; Heess et al. (2015) for the gradient.",
        defects=(
            *PATHWISE,
            "The baseline of its score function is the mean of the trajectory's own fold, so that "
            "no return reaches the weight of its own trajectory.",
        ),
    ),
    "shac": AgentNotes(
        title="SHAC",
        gradient="pathwise through a window, with a value beyond it, mixed with the score function",
        when="The first choice in a differentiable environment: the value beyond the window "
        "allows long episodes, and the mix with the score function survives contacts and "
        "amplification.",
        objective=r"\mathbb{E}\Big[ \sum_{k < H} \gamma^k r_k + \gamma^H V_\phi(s_H) \Big] "
        r"\quad\text{by}\quad \sum_t \frac{dJ}{da_t} \frac{\partial a_t}{\partial \theta}",
        sources="Xu et al. (2022).",
        defects=(
            WINDOWS,
            *PATHWISE,
            "No gradient passes through the last observation of an episode that terminated, nor "
            "from one episode into the next.",
        ),
    ),
    "sapo": AgentNotes(
        title="SAPO",
        gradient="pathwise through a window with the entropies along it, with a value beyond it, "
        "mixed with the score function",
        when="As `shac`, where the policy settles on one way to act before it has found a good "
        "one: the weight of the entropy is learned, and two value functions damp what one "
        "of them imagines.",
        objective=r"\mathbb{E}\Big[ \sum_{k < H} \gamma^k \big( r_k + \alpha\, h(s_k) \big) + "
        r"\gamma^H \bar{V}(s_H) \Big], \qquad "
        r"h(s) = \frac{\mathcal{H}(\pi_\theta(\cdot | s)) - \mathcal{H}^*}{A}",
        sources="Xing et al. (2025), *Stabilizing reinforcement learning in differentiable "
        "multiphysics simulation*.",
        defects=(
            WINDOWS,
            PATHWISE[0],
            "The values beyond the window, and in the targets, are those of the state after a "
            "step. The published code takes the state before it where policy and value function "
            "share an encoder, which is its default.",
            "The two value functions have weights of their own: `J` takes their mean, and the "
            "targets the least.",
            "The gradient of the entropy has both parts: through the states, to which earlier "
            "actions led, and directly, with the discount of its step.",
            "The weight of the entropy starts at 0.03 standard deviations of the rewards. The "
            "published start is 1 in the unit of the rewards; with it the policy's standard "
            "deviation rose to its bound on the pendulum and stayed there for 100,000 steps.",
        ),
    ),
    "ahac": AgentNotes(
        title="AHAC",
        gradient="pathwise through a window as long as its adjoint allows, with a value beyond it, "
        "mixed with the score function",
        when="As `shac`, where nobody knows how long a window should be, or where the answer "
        "changes while the agent learns, as with contacts.",
        objective=r"\max_{\theta, H}\ \mathbb{E}\Big[ \sum_{k < H} \gamma^k r_k + \gamma^H "
        r"V_\phi(s_H) \Big] \quad\text{with}\quad \frac{\gamma^{-t}\, |dJ/du_t|}"
        r"{\gamma^{1-H}\, |dJ/du_{H-1}|} \le C \quad\text{for all } t < H",
        sources="Georgiev et al. (2024), *Adaptive horizon actor-critic for policy learning in "
        "contact-rich differentiable simulation*.",
        defects=(
            WINDOWS,
            *PATHWISE,
            "The constraint is on the adjoint that was measured, in any environment. The published "
            "one is on contact forces and accelerations that a simulator must report.",
            "The horizon shrinks where the constraint is violated and grows where it is not: one "
            "of the two published codes does the opposite. The multipliers do not fall below 0, "
            "and a damping term keeps horizon and multipliers from circling. A test has an "
            "environment whose stiffness is known.",
            "The two value functions have weights of their own. Both published ones are made of "
            "the same layers.",
            "A fit ends where the loss has stopped changing relative to its size, and not by an "
            "absolute number that depends on the rewards.",
        ),
    ),
    "rpo": AgentNotes(
        title="RPO",
        gradient="pathwise through a window, with a value beyond it, reused in several steps",
        when="As `shac`, where a step of the environment and its derivative cost more than a "
        "step of the policy: each window is used several times.",
        objective=r"\mathbb{E}\Big[ w_t\, \frac{dJ}{du_t} \cdot \big( \mu_\theta(s_t) + "
        r"\sigma_\theta(s_t)\, \epsilon_t \big) \Big] - \beta\, \mathrm{KL}(\pi_{\text{old}}\, "
        r"\|\, \pi_\theta), \qquad \epsilon_t = \frac{u_t - \mu_\theta(s_t)}"
        r"{\sigma_\theta(s_t)}",
        sources="*Reparameterization proximal policy optimization*, arXiv 2508.06214 (2025).",
        defects=(
            WINDOWS,
            *PATHWISE[1:],
            "The first step is that of `shac` with `--estimator pathwise`, to the bit. The later "
            "ones need neither a step of the environment nor a backward pass through it.",
            "The divergence is the exact one of the two Gaussians, and its weight is in units of "
            "the standard deviation of the rewards.",
            "Clip, divergence and number of steps are settings of their own (`--clip-low`, "
            "`--clip-high`, `--kl-coef-relative`, `--n-epochs`), so that their effects can be told "
            "apart.",
        ),
    ),
    "svg": AgentNotes(
        title="SVG",
        gradient="pathwise through a learned Q (horizon 0) or a learned model (1, infinity)",
        when="Continuous actions and few steps, as for `sac`; and to see what a learned "
        "model's derivatives are worth.",
        objective=r"\mathbb{E}_{(s, a) \sim \mathcal{D}}\big[ w\, \big(r(s, a) + \gamma "
        r"V(f_\psi(s, a))\big) \big], \qquad w = \min\Big(\frac{\pi_\theta(a|s)}"
        r"{\pi_{\text{old}}(a|s)},\ c\Big)",
        sources="Heess et al. (2015).",
        defects=(
            WINDOWS,
            "States and rewards are always the real ones, and only derivatives are the model's: "
            "the noise of the actions that were taken is inferred.",
            "The value is `Q(s', a')` at a fresh action, because a Q can be fitted on replayed "
            "steps without importance weights.",
            "The entropy of the squashed action is in the objective. Without it two thirds of the "
            "pendulum's actions were saturated after 2,000 steps.",
        ),
    ),
}
"""Agent to notes, by the gradient that they follow."""
