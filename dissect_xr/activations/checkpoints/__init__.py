"""Files of weights: what they are, what they hold, and how their names become those of a model."""
