"""The world: a seed becomes a place, a script, pictures and the facts that they show."""
