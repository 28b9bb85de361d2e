"""`python -m cnnkernels.cli` is the command `cnnkernels`."""

from cnnkernels.cli import main

if __name__ == "__main__":
    main(prog_name="cnnkernels")
