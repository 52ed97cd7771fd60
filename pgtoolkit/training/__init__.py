"""The training loop and what it writes: TensorBoard events, checkpoints, the run folder."""
