"""Tests of the Helm chart: with Helm itself, and on a control plane."""
