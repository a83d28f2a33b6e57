"""Tuning: the steps of ``rectool tune``.

``space`` reads the file of settings to try and checks it against the recipe before anything runs; ``study`` trains one
trial after another and tells Optuna the validation metric; ``store`` keeps the trials in one file.

A trial depends only on that file: the sampler of trial n is seeded by (seed, n) and given all earlier trials. So a
study that was killed draws the same settings when it is started again, and an interrupted trial resumes from its
checkpoint. The test part is never ranked: a study sees the training and validation parts alone.
"""
