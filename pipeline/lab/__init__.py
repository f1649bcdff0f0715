"""The Allocator's training and evaluation on the product's own parts: nothing here runs beside a camera."""
