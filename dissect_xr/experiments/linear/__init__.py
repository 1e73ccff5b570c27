"""Linear classifiers of images by what units respond to: their features, weights, and what they get right."""
