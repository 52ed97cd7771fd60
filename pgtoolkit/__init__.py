"""pgtoolkit: one Gaussian policy, two gradients, both measured.

The public names of the core are listed in ``__init__.pyi``. Environments are in
:mod:`pgtoolkit.envs`, agents in :mod:`pgtoolkit.agents`, commands in :mod:`pgtoolkit.scripts`. A
name is imported when it is first used, so that ``import pgtoolkit`` and ``pgtoolkit --help`` do not
wait for torch.
"""

import lazy_loader

from pgtoolkit.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
