"""Questions about the yard: conditions with three values, their wordings, watches, and what is true."""
