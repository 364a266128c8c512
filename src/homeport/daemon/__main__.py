"""`python -m homeport.daemon` is `homeportd`."""

from homeport.daemon.process import main

main()
