"""`python -m homeport` is `homeport`."""

from homeport.cli.main import main

if __name__ == "__main__":
    main()
