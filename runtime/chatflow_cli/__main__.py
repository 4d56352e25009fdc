"""`python -m chatflow_cli`: the same as `chatflow`."""

from chatflow_cli.main import main

main()
