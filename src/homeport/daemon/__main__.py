"""`python -m homeport.daemon` is `homeportd`."""

from homeport.daemon.process import main

if __name__ == "__main__":
    main()
