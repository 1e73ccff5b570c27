"""The tail of activations: the cells above a bound that lies below the threshold, with their neighbours."""
