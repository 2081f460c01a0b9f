"""Too much to do: refuse newcomers first (`marks`), then shed subscribers by class (`shedding`).

Both are plain arithmetic over what housekeeping measures once a second; neither touches a packet.
"""

from rtpfanout.overload.marks import HighWater, OverloadLimits, Sample
from rtpfanout.overload.shedding_policy import Load, SheddingPolicy, Standing, Step

__all__ = ["HighWater", "Load", "OverloadLimits", "Sample", "SheddingPolicy", "Standing", "Step"]
