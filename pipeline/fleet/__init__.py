"""Many machines: streams placed on nodes, each of which runs the ordinary service for its own."""
