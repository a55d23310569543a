"""Numerics without any ASL in them: solver, batches of voxels, devices, smoothing."""
