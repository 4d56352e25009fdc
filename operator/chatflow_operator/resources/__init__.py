"""Builders of the objects of a flow, a module a kind. All are pure: a frame in, manifests out."""
