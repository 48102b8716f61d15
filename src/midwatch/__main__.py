"""`python -m midwatch`: the command line, where the script is not on the path."""

from midwatch.surfaces.cli import main

if __name__ == "__main__":
    main(prog_name="midwatch")
