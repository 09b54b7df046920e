"""``lockkit bench``: measure lockkit on this machine, and the floor: the least that any lock has to do.

In one run the contenders take turns in small rounds, so that other load on the machine affects all of them.
Figures are medians, and ratios are computed within a round. Times of two runs cannot be compared; ratios can.
"""
