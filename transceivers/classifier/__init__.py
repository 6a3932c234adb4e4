"""Task-oriented transceiver: classification of images from the features that are sent."""
