"""The network, its policy and the query encoder. torch lives here."""
