"""The cost of recurrence, compared with a dense U-Net and with the published network."""

PARTS = ("inference", "anatomy", "training", "classes", "loader", "quality", "deployed")
