"""Modules that are written beside exported mmdet settings: each needs mmdet and torch, none needs cissod-bench."""
