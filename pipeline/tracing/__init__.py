"""Traces of hops, from their frames to where their events lie. Off unless a site names a receiver."""
