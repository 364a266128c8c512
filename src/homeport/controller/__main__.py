"""`python -m homeport.controller`."""

from homeport.controller.process import main

main()
