"""Episodes of the yard as the Allocator is trained and compared on them."""
