"""Training: datasets, the shared semi-supervised detector, the loop over generations."""
