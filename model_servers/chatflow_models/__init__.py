"""Models of ChatFlow: the intent classifier and the training behind it."""
