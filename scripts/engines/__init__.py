"""Where the commands of a comparison or a study run: here, on a Ray cluster, or under Slurm."""
