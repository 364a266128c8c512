"""Reviews of what the API server is asked to keep, in lint's words, and the webhook that gives them."""
