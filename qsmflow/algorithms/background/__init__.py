"""Removal of the background field, the field of sources outside the region of interest.

All methods take and give ppm, work inside the bounding box of the mask, and return the local
field together with the mask on which it holds. They differ in what they hold on to:

- `spherical` (SHARP, V-SHARP, RESHARP) and `ismv` (iSMV): a background equals its mean over a
  sphere. They erode the mask by the radius, V-SHARP by the smallest.
- `lbv` (LBV): a background is harmonic and follows from its values on the boundary. It costs the
  outermost layers of the mask.
- `harperella` (iHARPERELLA): the same, with the harmonic field that fits best over the mask.
  It keeps the whole mask.
- `pdf` (PDF): a background is the field of dipoles outside. It keeps the whole mask.
"""
