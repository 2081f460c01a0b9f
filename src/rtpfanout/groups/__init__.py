"""Multicast groups that the configuration asks for: joined, and joined again.

`kernel` is what the host knows of groups, interfaces and routes, `memberships` sees to it that
those wanted are joined.
"""

from rtpfanout.groups.kernel import Kernel
from rtpfanout.groups.memberships import Memberships

__all__ = ["Kernel", "Memberships"]
