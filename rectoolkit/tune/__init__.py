"""Settings searched for: the life of ``rectool tune``.

``space`` the file of ranges, checked against the recipe before anything runs; ``study`` trials one after another,
each a training whose validation metric Optuna is told; ``store`` what a study remembers, as one file.

A trial is a function of what the file holds: the sampler of trial n is seeded by (seed, n) and told of all trials
before it, from the file. So a study that was killed and started again draws what it would have drawn, and a trial
cut short goes on from its checkpoint. The test part is never ranked: a study sees train and validation alone.
"""

from rectoolkit.tune.space import Search, read_search
from rectoolkit.tune.study import Watcher, tune

__all__ = ["Search", "Watcher", "read_search", "tune"]
