"""Simulated heads and simple shapes, to test every stage against a known truth."""

from qsmflow.phantom.acquisition import (
    Acquisition,
    simulate_gre,
    simulate_t1w,
    small_acquisition,
)
from qsmflow.phantom.dataset import SMALL, Protocol, region_truth, write_bids
from qsmflow.phantom.head import Head, Pose, make_head
from qsmflow.phantom.shapes import cylinder, sphere

__all__ = [
    'SMALL',
    'Acquisition',
    'Head',
    'Pose',
    'Protocol',
    'cylinder',
    'make_head',
    'region_truth',
    'simulate_gre',
    'simulate_t1w',
    'small_acquisition',
    'sphere',
    'write_bids',
]
