"""The studio: an HTTP API and a page on which one sees what a model believes."""
