"""The ``bench`` fixture of the kernel's tests: an agent built from real parts."""

from tests.agent.conftest import bench

__all__ = ["bench"]
