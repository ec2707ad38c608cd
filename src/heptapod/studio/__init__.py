"""The studio: an HTTP API and a page that shows the predictions of a model while it samples."""
