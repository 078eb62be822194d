"""What a person sees: overlays, plots, diagrams of networks."""
