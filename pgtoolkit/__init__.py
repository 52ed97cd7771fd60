"""pgtoolkit: one Gaussian policy, two gradients, both measured.

The public names of the core are listed in ``__init__.pyi``. Environments are in
:mod:`pgtoolkit.envs`, agents in :mod:`pgtoolkit.agents`, commands in :mod:`pgtoolkit.scripts`. A
name is imported when it is first used, so that ``import pgtoolkit`` and ``pgtoolkit --help`` do not
wait for torch.
"""

from pgtoolkit.lazy_names import lazy_names

__getattr__, __dir__ = lazy_names(__name__, __file__)
