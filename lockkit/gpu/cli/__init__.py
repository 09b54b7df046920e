"""``lockkit gpu``, and the parts of other commands that are about GPUs: ``run --gpu``, the tab of ``top``."""
