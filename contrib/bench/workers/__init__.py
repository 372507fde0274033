"""What several workers cost and keep, against what they must reach: a module for each measurement."""
