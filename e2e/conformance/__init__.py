"""`make conformance`: what the gateway promises on the wire, held to it from outside."""
