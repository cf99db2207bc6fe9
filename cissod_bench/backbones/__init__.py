"""Weights of pretrained backbones: where they come from and how they see images."""
