"""The API: what people, the command line and the page use to see and change what is wanted."""
