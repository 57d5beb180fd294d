"""`python -m modelport` is `modelport`."""

from modelport.core.cli.main import main

main()
