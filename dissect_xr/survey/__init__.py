"""The human check: do people agree with what a dissection says of its units?"""
