"""What a person sees: overlays and plots."""
