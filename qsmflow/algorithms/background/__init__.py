"""Removal of the background field, the field of sources outside the region of interest.

All methods take and give ppm, work inside the bounding box of the mask plus padding, and return
the local field together with the mask on which it holds.
"""
