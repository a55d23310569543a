"""Fits of each voxel by itself."""
