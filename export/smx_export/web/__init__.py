"""The file in a browser: a static page that tests the model on load and lets one try it."""
