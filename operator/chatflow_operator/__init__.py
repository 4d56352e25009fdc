"""The operator: a ChatFlow applied to a Kubernetes API becomes running gateways, state and models, and stays so."""
