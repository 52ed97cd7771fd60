"""Gymnasium's environment classes with their type parameters left open."""

from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv

AnyEnv = gymnasium.Env[Any, Any]
AnyVectorEnv = VectorEnv[Any, Any, Any]
