"""Datasets, whole in memory: float32 images NCHW in [-1, 1], int64 labels."""

from neuralfuse.data.dataset import Dataset, augment, load, names, sources, split

__all__ = ["Dataset", "augment", "load", "names", "sources", "split"]
