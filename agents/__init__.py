"""Agents, one algorithm a file.

Each takes ``(config, env, *, seed, total_steps)`` and has ``collect``, ``update``, ``state_dict``
and ``load_state_dict``: the protocol of :class:`pgtoolkit.agent.Agent`.
"""
