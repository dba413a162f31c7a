"""The run page: what a run has left so far, as JSON, and one HTML page that draws it."""
