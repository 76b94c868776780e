"""The agent over real parts that the tests of the kernel use."""

from tests.agent.conftest import bench

__all__ = ["bench"]
