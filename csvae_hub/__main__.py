"""`python -m csvae_hub`: the command line."""

from csvae_hub.cli import main

if __name__ == "__main__":
    main()
