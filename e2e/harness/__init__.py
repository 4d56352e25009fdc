"""What scenarios on a real cluster are written with: a namespace a test, waits that explain themselves, forwards."""
