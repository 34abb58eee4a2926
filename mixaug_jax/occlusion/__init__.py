"""The occlusion anomaly: is a network better on images that parts have been removed from?"""
