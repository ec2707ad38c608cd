"""A trained model in use: loading, sampling, editing, questions and records."""
