"""The page's screens: one module for each kind of thing."""
