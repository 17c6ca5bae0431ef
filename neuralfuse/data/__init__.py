"""Datasets, whole in memory: float32 images NCHW in [-1, 1] with int64 labels, and tasks of other kinds."""

from neuralfuse.data.dataset import Dataset, augment, load, names, sources, split

__all__ = ["Dataset", "augment", "load", "names", "sources", "split"]
