"""Gymnasium's MuJoCo environments, by MuJoCo's own transition derivatives."""
