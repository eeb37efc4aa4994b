"""Dipole inversion: from the local field to susceptibility.

All methods share one signature, work on the padded bounding box of the mask, and return
susceptibility in ppm that is zero outside the mask and not referenced to any tissue. The mean of
the susceptibility is not determined by the field: referencing is a step of its own.
"""
