"""cissod-bench: a benchmark of class-imbalanced semi-supervised object detection (CI-SSOD)."""

__version__ = "0.1.0"
