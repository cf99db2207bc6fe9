"""Bytes: whole files, JSON, images, hashes."""
