"""Trained image networks, how they are shown images, and views: what programs on images share."""
