"""What events rest on: kept, explained, asked again."""
