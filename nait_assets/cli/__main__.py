"""`python -m nait_assets.cli`, for where the entry point `nait` is not on the path."""

from nait_assets.cli import main

if __name__ == "__main__":
    main()
