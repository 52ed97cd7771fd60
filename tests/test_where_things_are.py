"""Twenty questions that a newcomer asks, and the file whose name answers each.

The questions were written before the files were arranged. A reader who knows reinforcement learning
and torch should guess the file; the test holds that the thing is defined there.
"""

QUESTIONS = (
    "Where is generalised advantage estimation (GAE)?",
    "Where is the score-function (REINFORCE) surrogate?",
    "Where is the list of all gradient estimators, with their names, labels and colours?",
    "Where would a new environment wrapper go?",
    "Where are the MuJoCo transition derivatives?",
    "Where are the pendulum's dynamics?",
    "Where is the tanh-squashed Gaussian's log density?",
    "Where is the KL divergence of two Gaussians?",
    "Where is the policy's network put together from the settings?",
    "Where is Adam with clipping and a learning-rate schedule?",
    "Where is the value function fitted?",
    "Where is the replay buffer?",
    "Where is the observation normaliser?",
    "Where is the variance of a gradient estimated, with its interval?",
    "Where is the gradient of each trajectory computed?",
    "Where is a checkpoint written?",
    "Where are the TensorBoard tags defined?",
    "Where is the training loop?",
    "Where is PPO's clipped loss?",
    "Where is an environment's name turned into an environment?",
)
